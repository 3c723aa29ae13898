// The environment of all agents: every build installs through the proxy without changes of its own.
//
// Put this file into $JENKINS_HOME/init.groovy.d/ and restart Jenkins, or paste it into Manage Jenkins > Script Console.
// `pypiproxy client-config pip --url https://packages.corp.example` prints the settings for your own address.

import hudson.slaves.EnvironmentVariablesNodeProperty
import jenkins.model.Jenkins

def settings = [
    PIP_INDEX_URL    : 'https://packages.corp.example/simple/',
    UV_DEFAULT_INDEX : 'https://packages.corp.example/simple/',
    // pip accepts plain http from another host only with PIP_TRUSTED_HOST : 'packages.corp.example',
    // For a certificate that an authority of your own signed: PIP_CERT and SSL_CERT_FILE : '/etc/ssl/certs/ca-certificates.crt',
]

def properties = Jenkins.get().globalNodeProperties
def property = properties.get(EnvironmentVariablesNodeProperty)
if (property == null) {
    property = new EnvironmentVariablesNodeProperty([])
    properties.add(property)
}
settings.each { name, value -> property.envVars.put(name, value) }
Jenkins.get().save()
