"""A small certificate authority, made afresh for each run: OpenSSL's own, as operators have it."""

import pathlib
import subprocess

# ejabberd reads no later dates, and a clock of the machine that is a little off must not matter.
FROM, UNTIL = "20240601000000Z", "20381231235959Z"
PAST_FROM, PAST_UNTIL = "20240601000000Z", "20240701000000Z"

CONFIG = """
[ca]
default_ca = here
[here]
database = {folder}/index.txt
serial = {folder}/serial
new_certs_dir = {folder}/issued
default_md = sha256
policy = any
unique_subject = no
[any]
commonName = supplied
[req]
distinguished_name = name
[name]
[authority]
basicConstraints = critical, CA:true
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[server]
basicConstraints = critical, CA:false
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth, clientAuth
subjectAltName = $ENV::SUBJECT
"""


class Authority:
    """Gives certificates for domains, in files `NAME.crt` and `NAME.key` of a folder."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        (self.folder / "issued").mkdir(parents=True)
        (self.folder / "index.txt").touch()
        (self.folder / "serial").write_text("01\n")
        self.config = self.folder / "openssl.cnf"
        self.config.write_text(CONFIG.format(folder=self.folder))
        self.certificate, self.key = self.folder / "ca.crt", self.folder / "ca.key"
        self._sign("authority of this test", self.certificate, self.key, "authority", "", [])

    def issue(self, folder, domain, subject=None, dates=(FROM, UNTIL), is_trusted=True):
        """For `domain`, in files of its name; its names are those of `subject` (the domain's own), as OpenSSL writes them.
        Not trusted: signed by its own key."""
        folder.mkdir(parents=True, exist_ok=True)
        certificate, key = folder / f"{domain}.crt", folder / f"{domain}.key"
        signer = ["-cert", self.certificate, "-keyfile", self.key] if is_trusted else []
        # Some take a common name for a domain.
        self._sign("server of this test", certificate, key, "server", subject or f"DNS:{domain}", signer, dates)
        # Some look for the key and the chain in one file.
        (folder / f"{domain}.pem").write_text(certificate.read_text() + key.read_text())
        return certificate, key

    def _sign(self, name, certificate, key, extensions, subject, signer, dates=(FROM, UNTIL)):
        request = certificate.with_suffix(".csr")
        environment = {"PATH": "/usr/bin:/bin", "SUBJECT": subject or "DNS:unused.example"}
        new = ["openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        run([*new, "-config", self.config, "-subj", f"/CN={name}", "-keyout", key, "-out", request], environment)
        sign = ["openssl", "ca", "-batch", "-notext", "-config", self.config, "-extensions", extensions]
        sign += ["-startdate", dates[0], "-enddate", dates[1], "-in", request, "-out", certificate]
        run([*sign, *(signer or ["-selfsign", "-keyfile", key])], environment)
        request.unlink()
        key.chmod(0o644)


def run(command, environment):
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=30)
    if done.returncode != 0:
        raise SystemExit(f"FAILED {' '.join(map(str, command))}: {done.stderr}")
