# SPDX-License-Identifier: Apache-2.0
"""The emulator's CA, its server certificates (also wrong ones, for tests), and client certificates."""

import datetime
import ipaddress
import ssl
import threading

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAY = datetime.timedelta(days=1)
# good, and what a client must refuse.
KINDS = ("good", "expired", "not_yet_valid", "wrong_name", "other_ca")


def key_pem(key):
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def load_key(pem):
    return serialization.load_pem_private_key(pem, None)


def _name(common_name):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _certificate(subject, key, issuer=None, issuer_key=None, hosts=(), days=(-1, 3650)):
    """A CA if there is no @issuer and no host; self-signed if there is no issuer."""
    now = datetime.datetime.now(datetime.timezone.utc)
    is_ca = issuer is None and not hosts
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(issuer.subject if issuer else _name(subject))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + days[0] * DAY)
        .not_valid_after(now + days[1] * DAY)
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if is_ca:
        usage = dict.fromkeys(
            ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment",
             "key_agreement", "encipher_only", "decipher_only"), False)
        builder = builder.add_extension(
            x509.KeyUsage(key_cert_sign=True, crl_sign=True, **usage), critical=True
        )
    if issuer:
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()),
            critical=False,
        )
    if hosts:
        names = []
        for host in hosts:
            try:
                names.append(x509.IPAddress(ipaddress.ip_address(host)))
            except ValueError:
                names.append(x509.DNSName(host))
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        builder = builder.add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False
        )
    return builder.sign(issuer_key or key, hashes.SHA256())


def client_certificate(common_name, bits=2048):
    """(key, certificate) for a client that authenticates by certificate."""
    key = rsa.generate_private_key(65537, bits)
    return key, _certificate(common_name, key, hosts=(f"{common_name}.invalid",))


def pem_of(certificate):
    return certificate.public_bytes(serialization.Encoding.PEM)


class Certificates:
    """The CA in @state (made if missing) and one TLS context per kind of server certificate."""

    def __init__(self, state, hosts):
        self.state = state
        self.hosts = hosts
        self.kind = "good"
        self.contexts = {}
        self.lock = threading.Lock()
        ca_key, ca = state.read("ca-key.pem"), state.read("ca.pem")
        if ca_key and ca:
            self.ca_key, self.ca = load_key(ca_key), x509.load_pem_x509_certificate(ca)
        else:
            self.ca_key = ec.generate_private_key(ec.SECP256R1())
            self.ca = _certificate("turnkeyfs emulator CA", self.ca_key)
            state.write("ca-key.pem", key_pem(self.ca_key))
            state.write("ca.pem", pem_of(self.ca), 0o644)
        self.ca_path = state.path("ca.pem")

    def context(self):
        """For the next connection."""
        with self.lock:
            if self.kind not in self.contexts:
                self.contexts[self.kind] = self._make(self.kind)
            return self.contexts[self.kind]

    def use(self, kind):
        if kind not in KINDS:
            raise ValueError(f"certificate: one of {', '.join(KINDS)}")
        self.kind = kind

    def _make(self, kind):
        key = ec.generate_private_key(ec.SECP256R1())
        issuer, issuer_key = self.ca, self.ca_key
        if kind == "other_ca":
            issuer_key = ec.generate_private_key(ec.SECP256R1())
            issuer = _certificate("somebody else's CA", issuer_key)
        days = {"expired": (-30, -1), "not_yet_valid": (1, 30)}.get(kind, (-1, 365))
        hosts = ("wrong.invalid",) if kind == "wrong_name" else self.hosts
        certificate = _certificate(hosts[0], key, issuer, issuer_key, hosts, days)
        name = f"server-{kind}.pem"
        self.state.write(name, key_pem(key) + pem_of(certificate))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self.state.path(name))
        context.sni_callback = lambda sock, asked, _: setattr(sock, "name_asked", asked)
        return context
