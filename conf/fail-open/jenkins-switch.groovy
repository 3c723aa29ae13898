// Turns the fail-open switch of all agents (docs/fail-open.md): paste it into Manage Jenkins > Script Console.
//
// It holds for steps that start from now on; a step that runs keeps the environment that it has.

import hudson.slaves.EnvironmentVariablesNodeProperty
import jenkins.model.Jenkins

def position = 'on' // or 'off'

def properties = Jenkins.get().globalNodeProperties
def property = properties.get(EnvironmentVariablesNodeProperty)
if (property == null) {
    property = new EnvironmentVariablesNodeProperty([])
    properties.add(property)
}
property.envVars.put('PYPIPROXY_PUBLIC_INDEX', 'https://packages.corp.example/index/pypi/simple/')
property.envVars.put('PYPIPROXY_DIRECT', position)
Jenkins.get().save()
println "The fail-open switch is ${position}."
