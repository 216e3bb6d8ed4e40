"""Servers of different makers, each on an address of its own, with the same domains: one for each way that there is between
two servers."""

import dataclasses
import pathlib
import shutil
import signal
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from names import ADDRESS, ZONE  # noqa: E402
from server import Corefire, is_open  # noqa: E402

START_SECONDS = 60
STOP_SECONDS = 30
CLIENT_PORT, SERVER_PORT, DIRECT_PORT = 5222, 5269, 5270
CLIENT_DIRECT_PORT, COMPONENT_PORT = 5223, 5347
# How long our servers keep a message for a domain that they do not reach.
PATIENCE_SECONDS = 12
# How long they wait for one address to answer at all.
CONNECT_SECONDS = 4
USERS = ("ada", "bea", "cyd")


@dataclasses.dataclass(frozen=True)
class Way:
    """How two servers come together. Each server has a domain for each way, and the domain's records and certificate leave
    no other: where only `_xmpps-server` is told, nothing listens at the domain itself; where the certificate is signed by
    its own key, nobody can take it for a proof."""

    name: str
    certificates: bool
    direct: bool

    def domain(self, label):
        return f"{self.name}.{label}.{ZONE}"


WAYS = (
    Way("cert-starttls", True, False),
    Way("cert-direct", True, True),
    Way("back-starttls", False, False),
    Way("back-direct", False, True),
)
# Two targets, of which the first is dead: it refuses, or says nothing at all. Ways of their own, so that nobody has a
# connection from elsewhere.
FAILOVER = Way("failover", True, False)
SILENT = Way("silent", True, False)
DEAD = {FAILOVER: "127.0.9.9", SILENT: "127.0.9.8"}
# Where the peers of the ledgers live.
LEDGER = Way("ledger", True, False)
# It says that it is `cert-starttls`, and its certificate is another's.
WRONG = Way("wrong", True, False)
ALL_WAYS = (*WAYS, FAILOVER, SILENT, LEDGER, WRONG)


def password(user):
    return f"pw-of-{user}"


class Peer:
    """A server: start, stop, kill, and the domains that it serves."""

    maker = "?"
    is_corefire = False
    # XEP-0198 between servers.
    has_acks = False
    checks_whom_it_dials = True

    def __init__(self, label, host, folder, authority, others):
        self.label, self.host = label, host
        self.folder = pathlib.Path(folder) / label
        self.folder.mkdir(parents=True)
        self.authority, self.others = authority, others
        self.certificates = self.folder / "certs"
        for way in ALL_WAYS:
            domain = way.domain(label)
            subject = f"DNS:{LEDGER.domain(label)}" if way is WRONG else None
            authority.issue(self.certificates, domain, subject, is_trusted=way.certificates)
        self.process = None
        self.starts = 0
        self.witness = self.folder / "witness"
        self.witness.touch()

    def domains(self):
        return [way.domain(self.label) for way in ALL_WAYS]

    def untrusted(self):
        """The domains of all others whose certificates prove nothing."""
        return [way.domain(other) for way in ALL_WAYS if not way.certificates for other in self.others]

    def tell(self, names):
        """Its records."""
        names.address(f"host.{self.label}", self.host)
        for way in ALL_WAYS:
            name = f"{way.name}.{self.label}"
            if way in DEAD:
                names.service(name, f"dead-{way.name}", SERVER_PORT, False, priority=1)
                names.service(name, f"host.{self.label}", SERVER_PORT, False, priority=2)
            else:
                port = DIRECT_PORT if way.direct else SERVER_PORT
                names.service(name, f"host.{self.label}", port, way.direct)

    def command(self):
        raise NotImplementedError

    def environment(self):
        return None

    def start(self):
        self.spawn()
        self.wait_open()

    def spawn(self):
        self.starts += 1
        self.log = self.folder / f"out-{self.starts}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder,
                env=self.environment(),
            )

    def wait_open(self):
        deadline = time.monotonic() + START_SECONDS
        while not self.is_ready():
            if self.process.poll() is not None:
                sys.exit(f"FAILED start of {self.label}: exit status {self.process.returncode}\n{self.tail()}")
            if time.monotonic() > deadline:
                sys.exit(f"FAILED start of {self.label}: not ready in {START_SECONDS} s\n{self.tail()}")
            time.sleep(0.05)

    def is_ready(self):
        return all(is_open(self.host, port) for port in (CLIENT_PORT, SERVER_PORT, DIRECT_PORT))

    def stop(self):
        """SIGTERM. Gives what is wrong with the way it ended, if anything."""
        if self.process is None:
            return None
        if self.process.poll() is not None:
            return f"{self.label} had ended by itself"
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            return f"{self.label}: still there {STOP_SECONDS} s after SIGTERM"
        return None

    def kill(self):
        self.process.kill()
        self.process.wait()

    def seen(self):
        """Ids of messages that it has read from other servers, by its own word and in its order; once each."""
        return list(dict.fromkeys(self.witness.read_text().split()))

    def logs(self):
        return sorted(self.folder.glob("*.log"))

    def tail(self, lines=60):
        text = []
        for log in self.logs():
            text += [f"---- {self.label}: {log.name}", *log.read_text(errors="replace").splitlines()[-lines:]]
        return "\n".join(text)


class Prosody(Peer):
    maker = "Prosody"
    has_acks = True

    CONFIG = """
run_as_root = true
data_path = "{folder}/data"
pidfile = "{folder}/prosody.pid"
plugin_paths = {{ "{folder}/modules" }}
certificates = "{folder}/certs"
log = {{ info = "{folder}/prosody.log"; debug = "{folder}/prosody.debug" }}
interfaces = {{ "{host}" }}
c2s_ports = {{ 5222 }}
c2s_direct_tls_ports = {{ 5223 }}
s2s_ports = {{ 5269 }}
s2s_direct_tls_ports = {{ 5270 }}
http_ports = {{ }}
https_ports = {{ }}
use_ipv6 = false
c2s_require_encryption = true
s2s_require_encryption = true
s2s_secure_auth = true
s2s_insecure_domains = {{ {untrusted} }}
-- What was not acknowledged when a connection is lost goes again, on the next.
smacks_s2s_resend = true
smacks_hibernation_time = 5
authentication = "internal_plain"
storage = "internal"
ssl = {{ cafile = "{authority}"; capath = "/nonexistent" }}
modules_enabled = {{
  "disco"; "roster"; "saslauth"; "tls"; "dialback"; "s2s_bidi"; "offline"; "ping"; "posix"; "smacks"; "time";
  "version"; "witness"
}}
"""
    # The word of the server for what it got from others.
    WITNESS = """
local function seen(event)
  local kind = event.origin.type
  if event.stanza.attr.id and (kind == "s2sin" or kind == "s2sout") then
    local file = assert(io.open("%s", "a"))
    file:write(event.stanza.attr.id, "\\n")
    file:close()
  end
end
module:hook("message/bare", seen, 1000)
module:hook("message/full", seen, 1000)
"""
    # All accounts by one process: `prosodyctl register` takes one for each.
    REGISTER = """
module:set_global()
local users = require "core.usermanager"
local done = {}
function module.command()
  for line in io.lines() do
    local name, host, password = line:match("^(%S+) (%S+) (.*)$")
    if not rawget(prosody.hosts, host) then
      prosody.hosts[host] = require "util.startup".make_host(host)
    end
    if not done[host] then
      done[host] = true
      require "core.storagemanager".initialize_host(host)
      users.initialize_host(host)
    end
    assert(users.create_user(name, password, host))
  end
  return 0
end
"""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        for name in ("data", "modules"):
            (self.folder / name).mkdir()
        quoted = "; ".join(f'"{domain}"' for domain in self.untrusted())
        config = self.CONFIG.format(
            folder=self.folder, host=self.host, untrusted=quoted, authority=self.authority.certificate
        )
        for way in ALL_WAYS:
            config += f'VirtualHost "{way.domain(self.label)}"\n'
            if way.certificates:
                config += '  modules_disabled = { "dialback" }\n'
        self.config = self.folder / "prosody.cfg.lua"
        self.config.write_text(config)
        (self.folder / "modules/mod_witness.lua").write_text(self.WITNESS % self.witness)
        (self.folder / "modules/mod_register_all.lua").write_text(self.REGISTER)
        accounts = "".join(
            f"{user} {domain} {password(user)}\n" for domain in self.domains() for user in USERS
        )
        command = ["prosodyctl", "--config", self.config, "mod_register_all"]
        done = subprocess.run(command, input=accounts, capture_output=True, text=True, timeout=30)
        if done.returncode != 0:
            sys.exit(f"FAILED accounts of {self.label}: {done.stdout}{done.stderr}")

    def command(self):
        return ["prosody", "--config", self.config, "-F"]


class Ejabberd(Peer):
    maker = "ejabberd"
    # COMPAT(ejabberd, 23.01): it takes whatever certificate it finds where the names led it.
    checks_whom_it_dials = False

    CONFIG = """
hosts: [{hosts}]
loglevel: info
auth_method: internal
auth_password_format: plain
default_db: mnesia
acme: {{auto: false}}
registration_timeout: infinity
certfiles: ["{certs}/*.pem"]
ca_file: "{authority}"
s2s_use_starttls: required
s2s_cafile: "{authority}"
s2s_dns_timeout: 2 seconds
s2s_dns_retries: 2
# How long it does not dial again what it could not reach.
s2s_max_retry_delay: 1 second
listen:
  - {{port: 5222, ip: "{host}", module: ejabberd_c2s, starttls_required: true, max_stanza_size: 262144}}
  - {{port: 5223, ip: "{host}", module: ejabberd_c2s, tls: true, max_stanza_size: 262144}}
  - {{port: 5269, ip: "{host}", module: ejabberd_s2s_in, max_stanza_size: 262144}}
  - {{port: 5270, ip: "{host}", module: ejabberd_s2s_in, tls: true, max_stanza_size: 262144}}
access_rules: {{local: {{allow: all}}, c2s: {{allow: all}}}}
modules:
  mod_s2s_dialback: {{}}
{modules}
host_config:
"""
    MODULES = ("disco", "offline", "ping", "roster", "stream_mgmt", "time", "version")

    def __init__(self, *arguments):
        super().__init__(*arguments)
        for name in ("data", "home"):
            (self.folder / name).mkdir()
        modules = [f"mod_{name}: {{}}" for name in self.MODULES]
        config = self.CONFIG.format(
            hosts=", ".join(f'"{domain}"' for domain in self.domains()), certs=self.certificates,
            host=self.host, authority=self.authority.certificate,
            modules="\n".join(f"  {module}" for module in modules),
        )
        for way in ALL_WAYS:
            if way.certificates:
                # Without dialback there is nothing but the certificate.
                config += f'  "{way.domain(self.label)}":\n    modules:\n'
                config += "".join(f"      {module}\n" for module in modules)
        self.config = self.folder / "ejabberd.yml"
        self.config.write_text(config)
        self.ready = self.folder / "ready"
        listed = [f'"{domain}"' for domain in self.domains()]
        users = [f'{{"{user}", "{password(user)}"}}' for user in USERS]
        (self.folder / "boot.term").write_text(f"[{', '.join(listed)}].\n[{', '.join(users)}].\n")

    def environment(self):
        import os

        return {
            **os.environ, "HOME": str(self.folder / "home"), "EJABBERD_CONFIG_PATH": str(self.config),
            "EJABBERD_LOG_PATH": str(self.folder / "ejabberd.log"),
            "ERL_CRASH_DUMP": str(self.folder / "crash.dump"),
        }

    def command(self):
        self.ready.unlink(missing_ok=True)
        code = next(pathlib.Path("/usr/lib").glob("**/ejabberd-*/ebin"), None)
        if code is None or shutil.which("erl") is None:
            sys.exit("FAILED: no ejabberd; apt-get install ejabberd")
        boot = f"""
            {{ok, [Hosts, Users]}} = file:consult("{self.folder}/boot.term"),
            Seen = fun({{Packet, State}}) ->
                case element(1, Packet) of
                    message -> file:write_file("{self.witness}", [xmpp:get_id(Packet), "\\n"], [append]);
                    _ -> ok
                end,
                {{Packet, State}}
            end,
            [begin
                Host = list_to_binary(Domain),
                [ejabberd_auth:try_register(list_to_binary(User), Host, list_to_binary(Password))
                    || {{User, Password}} <- Users],
                ejabberd_hooks:add(s2s_receive_packet, Host, Seen, 1)
             end || Domain <- Hosts],
            ok = file:write_file("{self.ready}", <<>>).
        """
        return [
            "erl", "-noinput", "-pa", code, "-mnesia", "dir", f'"{self.folder}/data"', "-s", "ejabberd",
            "-eval", " ".join(boot.split()),
        ]

    def is_ready(self):
        return self.ready.exists() and super().is_ready()


class Ours(Peer):
    maker = "Corefire"
    is_corefire = True
    has_acks = True

    def __init__(self, binary, *arguments):
        super().__init__(*arguments)
        domains = [f'"{domain}"' for domain in self.domains()]
        settings = [
            f"domains=[{', '.join(domains)}]",
            'limits.exempt=["127.0.0.0/8"]',
            "log.level=debug",
            "federation.enabled=true",
            f'federation.listen=["{self.host}:{SERVER_PORT}"]',
            f'federation.direct_tls_listen=["{self.host}:{DIRECT_PORT}"]',
            f"federation.ca_file={self.authority.certificate}",
            f'federation.dns=["{ADDRESS}:53"]',
            "federation.require_certificate=true",
            f"federation.patience_s={PATIENCE_SECONDS}",
            f"federation.limits.wait_s={PATIENCE_SECONDS}",
            f"federation.limits.connect_s={CONNECT_SECONDS}",
        ]
        for domain in self.untrusted():
            settings.append(f'federation.domains."{domain}".require_certificate=false')
        for domain in self.domains():
            for key, suffix in (("certificate", "crt"), ("key", "key")):
                settings.append(f'tls.hosts."{domain}".{key}={self.certificates / domain}.{suffix}')
        self.server = Corefire(
            binary, self.folder, shards=2, settings=settings, host=self.host,
            ports=(CLIENT_PORT, CLIENT_DIRECT_PORT, COMPONENT_PORT),
        )

    def spawn(self):
        self.starts += 1
        self.server.log = self.log = self.folder / f"serve-{self.starts}.log"
        self.server.spawn()
        self.process = self.server.process

    def wait_open(self):
        super().wait_open()
        if self.starts == 1:
            for domain in self.domains():
                for user in USERS:
                    self.server.add_user(f"{user}@{domain}", password(user))

    def stop(self):
        trouble = super().stop()
        if trouble is None and self.process is not None and self.process.returncode != 0:
            return f"{self.label}: exit status {self.process.returncode} after SIGTERM"
        return trouble

    def seen(self):
        """It keeps no such list: what it took is its own to keep."""
        return None
