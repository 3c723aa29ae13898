"""A real LDAP directory on loopback: Debian's slapd, with users and groups of its own, in a folder of the test's."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from tests.support import certs

SLAPD = shutil.which("slapd", path="/usr/sbin:/usr/local/sbin:/usr/lib/openldap")
SLAPADD = shutil.which("slapadd", path="/usr/sbin:/usr/local/sbin")
BASE = "dc=corp,dc=example"
#: Who searches.
READER, READER_PASSWORD = f"cn=reader,{BASE}", "the reader's"
_CONF = """
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/nis.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
pidfile {folder}/pid
TLSCACertificateFile {ca}
TLSCertificateFile {certificate}
TLSCertificateKeyFile {key}
database mdb
suffix "{base}"
rootdn "cn=root,{base}"
directory {folder}/db
access to attrs=userPassword by anonymous auth by * none
access to * by dn.exact="{reader}" read by * none
"""
_ENTRIES = """
dn: dc=corp,dc=example
objectClass: dcObject
objectClass: organization
o: corp
dc: corp

dn: cn=reader,dc=corp,dc=example
objectClass: organizationalRole
objectClass: simpleSecurityObject
cn: reader
userPassword: the reader's

dn: ou=people,dc=corp,dc=example
objectClass: organizationalUnit
ou: people

dn: uid=alice,ou=people,dc=corp,dc=example
objectClass: inetOrgPerson
uid: alice
cn: Alice
sn: A
userPassword: alice's pässword

dn: uid=bob,ou=people,dc=corp,dc=example
objectClass: inetOrgPerson
uid: bob
cn: Bob
sn: B
userPassword: bob's

dn: cn=twin one,ou=people,dc=corp,dc=example
objectClass: inetOrgPerson
uid: twin
cn: twin one
sn: T
userPassword: twin's

dn: cn=twin two,ou=people,dc=corp,dc=example
objectClass: inetOrgPerson
uid: twin
cn: twin two
sn: T
userPassword: twin's

dn: cn=nobody (\\2C*),ou=people,dc=corp,dc=example
objectClass: inetOrgPerson
uid: odd
cn: nobody (,*)
sn: N
userPassword: odd's

dn: ou=groups,dc=corp,dc=example
objectClass: organizationalUnit
ou: groups

dn: cn=Web Developers,ou=groups,dc=corp,dc=example
objectClass: groupOfNames
cn: Web Developers
member: uid=alice,ou=people,dc=corp,dc=example
member: cn=nobody (\\2C*),ou=people,dc=corp,dc=example

dn: cn=admins,ou=groups,dc=corp,dc=example
objectClass: groupOfNames
cn: admins
member: uid=bob,ou=people,dc=corp,dc=example

dn: cn=unix,ou=groups,dc=corp,dc=example
objectClass: posixGroup
cn: unix
gidNumber: 100
memberUid: alice
"""


def free_port() -> int:
    """A port of 127.0.0.1 that nobody uses now."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        number: int = taken.getsockname()[1]
        return number


class Slapd:
    """A directory in *folder*, which is empty."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.tls_port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"ldap://127.0.0.1:{self.port}"

    @property
    def tls_url(self) -> str:
        return f"ldaps://127.0.0.1:{self.tls_port}"

    @property
    def ca_file(self) -> Path:
        return self.folder / "ca.pem"

    def prepare(self) -> Slapd:
        """Write its configuration and its entries."""
        (self.folder / "db").mkdir(parents=True)
        self.ca_file.write_bytes(certs.authority().certificate_pem)
        certificate, key = certs.server().write(self.folder, "slapd")
        conf = self.folder / "slapd.conf"
        conf.write_text(
            _CONF.format(folder=self.folder, ca=self.ca_file, certificate=certificate, key=key, base=BASE, reader=READER)
        )
        assert SLAPADD is not None
        subprocess.run([SLAPADD, "-f", conf], input=_ENTRIES.encode(), check=True, capture_output=True)
        return self

    def start(self) -> Slapd:
        """Listen."""
        assert SLAPD is not None
        urls = f"{self.url} {self.tls_url}"
        command = [SLAPD, "-f", str(self.folder / "slapd.conf"), "-h", urls, "-d", "0"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for port in (self.port, self.tls_port):
            self._wait_for(port)
        return self

    def _wait_for(self, port: int) -> None:
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return
            except OSError:
                assert self._process is not None
                assert self._process.poll() is None, "slapd has ended"
                assert time.monotonic() < deadline, "slapd does not listen"
                time.sleep(0.02)

    def hold(self) -> None:
        """Answer nothing from now on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def stop(self) -> None:
        """End it."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGCONT)
            process.terminate()
            process.wait(20)
