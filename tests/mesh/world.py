"""A small world for sidecar tests: pods as network namespaces on one bridge, real sidecars, states made by the test.

The local runtime is not part of it, so that a test can tell a sidecar things that the control plane never would: a
wrong identity at an endpoint's address, a malformed state, a certificate that expired.

    with World() as world:
        server = world.pod("server", {8080: "http"})
        client = world.pod("client")
        web = world.service("web", {80: (8080, "http")}, [server])
        world.push()
        server.serve("http_server", "--port", "8080")
        client.call("http_client", "request", f"http://{web.vip}/echo")
"""

from __future__ import annotations

import http.client
import itertools
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from msgspec.structs import replace

from nginx_mesh.api.portprotocol import PortProtocol
from nginx_mesh.api.spiffe import SpiffeId, workload_id
from nginx_mesh.identity.common.keys import PrivateKey, generate_key, to_pem
from nginx_mesh.identity.common.x509svid import Signer, certificate_pem, issue_authority, issue_svid
from nginx_mesh.protocol.state import (
    Cluster,
    Destination,
    Endpoint,
    Entry,
    Identity,
    Inbound,
    LbMethod,
    MtlsMode,
    Settings,
    State,
    Update,
)
from nginx_mesh.sidecar.image import ensure_image
from tests.eventually import wait_until

PEERS = Path(__file__).parent / "peers"
TRUST_DOMAIN = "example.org"
SIDECAR_UID = 2102
JSON = dict[str, Any]

# What a sidecar sees: its own mount namespace with the pod's socket directory, a private /tmp, the host's devices.
_ENTER_IMAGE = """
mount --make-rprivate /
mount --bind "$2" "$1/run/nginx-mesh"
mount -t tmpfs -o mode=1777,size=64m tmpfs "$1/tmp"
mount --rbind /dev "$1/dev"
mount -t proc proc "$1/proc"
[ -z "$3" ] || mount --bind "$3" "$1/etc/nginx-mesh/nginx.conf"
ulimit -n "$(ulimit -Hn)"
exec chroot "$1" setpriv --reuid=2102 --regid=2102 --clear-groups --inh-caps=-all --bounding-set=-all --no-new-privs \
    /usr/lib/nginx-mesh/sidecar
"""


def cpu(pod: Pod) -> float:
    """Processor time of the pod's nginx workers so far, seconds."""
    fields = [Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split() for pid in pod.workers]
    return sum(int(field[11]) + int(field[12]) for field in fields) / os.sysconf("SC_CLK_TCK")


class Authority:
    """A CA of a trust domain: its own root, or below a company's, whose root is the bundle then."""

    def __init__(
        self, trust_domain: str = TRUST_DOMAIN, key_type: str = "ec-p256", *, company: Company | None = None
    ) -> None:
        key = generate_key(key_type)  # type: ignore[arg-type]
        now = time.time()
        serial = x509.random_serial_number()
        self.trust_domain = trust_domain
        self.chain = ""
        if company is None:
            self.certificate = issue_authority(key, trust_domain, now - 3600, now + 86400, serial)
        else:
            self.certificate = certify(company.signer, key, path_length=0, trust_domain=trust_domain)
            self.chain = certificate_pem(self.certificate) + company.chain
            self.bundle = company.bundle
        self.signer = Signer(self.certificate, key)

    @cached_property
    def bundle(self) -> str:
        return certificate_pem(self.certificate)

    def identity(self, spiffe_id: SpiffeId, *, valid: tuple[float, float] = (-300, 3600), bundle: str = "") -> Identity:
        """An SVID valid from and until so many seconds from now; `bundle` replaces this authority's own."""
        key = generate_key("ec-p256")
        now = time.time()
        leaf = issue_svid(
            self.signer, key.public_key(), spiffe_id, (), now + valid[0], now + valid[1], x509.random_serial_number()
        )
        return Identity(
            spiffe_id=str(spiffe_id),
            svid=certificate_pem(leaf) + self.chain,
            key=to_pem(key),
            bundle=bundle or self.bundle,
        )


class Company:
    """A root as companies have it, which says nothing of SPIFFE, and a number of intermediates, each below the last."""

    def __init__(self, intermediates: int = 0) -> None:
        key = generate_key("ec-p384")
        self.signer = Signer(certify(None, key, path_length=None), key)
        self.bundle = certificate_pem(self.signer.certificate)
        self.chain = ""
        for left in reversed(range(intermediates)):
            key = generate_key("rsa-2048")
            self.signer = Signer(certify(self.signer, key, path_length=left + 1), key)
            self.chain = certificate_pem(self.signer.certificate) + self.chain


def certify(
    issuer: Signer | None, key: PrivateKey, *, path_length: int | None, trust_domain: str = ""
) -> x509.Certificate:
    """A certificate for the CA with this key, self-signed without an issuer."""
    serial = x509.random_serial_number()
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"CA {serial:x}")])
    now = datetime.now(UTC)
    usage = dict.fromkeys(
        ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only"), False
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name if issuer is None else issuer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.KeyUsage(digital_signature=False, key_cert_sign=True, crl_sign=True, decipher_only=False, **usage),
            critical=True,
        )
    )
    if trust_domain:
        uri = x509.UniformResourceIdentifier(str(SpiffeId(trust_domain)))
        builder = builder.add_extension(x509.SubjectAlternativeName([uri]), critical=False)
    return builder.sign(key if issuer is None else issuer.key, SHA256())


class ControlConnection(http.client.HTTPConnection):
    """HTTP over a sidecar's control socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("sidecar", timeout=30)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(30)
        self.sock.connect(str(self._path))


@dataclass
class Peer:
    """A server process of a test."""

    process: subprocess.Popen[str]
    port: int

    def stop(self, how: signal.Signals = signal.SIGKILL) -> None:
        self.process.send_signal(how)
        self.process.wait(10)


@dataclass
class Service:
    """A name with a virtual address; `ports` are port → (target port, protocol)."""

    name: str
    vip: str
    vip6: str
    ports: Mapping[int, tuple[int, PortProtocol]]
    pods: list[Pod]
    lb_method: LbMethod = "round_robin"


@dataclass(eq=False)
class Pod:
    """A network namespace, with a sidecar if it is meshed."""

    world: World
    name: str
    address: str
    address6: str
    ports: Mapping[int, PortProtocol]
    meshed: bool
    namespace: str
    directory: Path
    mode: MtlsMode | None = None
    body_size: int = 0
    identity: Identity | None = None
    authority: Authority | None = None
    federated: dict[str, str] = field(default_factory=dict)
    inbound: dict[int, Inbound] = field(default_factory=dict)
    sidecar: subprocess.Popen[bytes] | None = None
    expected_id: str = ""
    log_level: str = "info"
    log_format: str = "json"
    sampler_ratio: float | None = None
    log_path: Path = Path()
    conf: str = ""

    def __post_init__(self) -> None:
        self.log_path = self.directory / "log"

    @property
    def spiffe_id(self) -> SpiffeId:
        return workload_id(self.issuer.trust_domain, "test", self.name)

    @property
    def issuer(self) -> Authority:
        """The CA that vouches for this pod."""
        return self.authority or self.world.authority

    def command(self, *argv: str) -> list[str]:
        return ["ip", "netns", "exec", self.namespace, *argv]

    def serve(self, peer: str, *arguments: str) -> Peer:
        """Start a server of tests/mesh/peers and wait until it listens."""
        argv = self.command(sys.executable, str(PEERS / f"{peer}.py"), "--name", self.name, *arguments)
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        self.world.processes.append(process)
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, f"{peer} did not start in {self.name}"
        return Peer(process, json.loads(line)["port"])

    def start(self, peer: str, *arguments: str) -> subprocess.Popen[str]:
        """Start a client of tests/mesh/peers that prints one JSON document."""
        argv = self.command(sys.executable, str(PEERS / f"{peer}.py"), *arguments)
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        self.world.processes.append(process)
        return process

    def call(self, peer: str, *arguments: str, seconds: float = 60) -> JSON:
        """Run a client to its end and give what it printed; `error` is in it when it failed."""
        out, _ = self.start(peer, *arguments).communicate(timeout=seconds)
        document: JSON = json.loads(out)
        return document

    def get(self, url: str, *headers: str, **options: str) -> JSON:
        """The answer to one HTTP request; `--method` and the like as keyword arguments."""
        flags = itertools.chain.from_iterable((f"--{name}", value) for name, value in options.items())
        document = self.call("http_client", "request", url, *flags, *(f"--header={header}" for header in headers))
        answer: JSON = document["answers"][0] if "answers" in document else document
        return answer

    def output(self, *argv: str) -> str:
        """Stdout of any command in the pod."""
        return subprocess.run(self.command(*argv), check=True, capture_output=True, text=True, timeout=30).stdout

    # the sidecar

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def start_sidecar(self) -> None:
        image = self.world.image
        subprocess.run(self.command("chroot", str(image), "/usr/lib/nginx-mesh/redirect"), check=True)
        log = self.log_path.open("a")
        os.fchown(log.fileno(), SIDECAR_UID, SIDECAR_UID)
        conf = self.directory / "nginx.conf"
        if self.conf:
            conf.write_text(self.conf)
        parts = (str(image), str(self.socket_dir), str(conf) if self.conf else "")
        argv = self.command("unshare", "--mount", "sh", "-ec", _ENTER_IMAGE, "sh", *parts)
        self.sidecar = subprocess.Popen(argv, stdout=log, stderr=log)
        self.world.processes.append(self.sidecar)
        log.close()
        wait_until(
            lambda: (self.socket_dir / "control.sock").exists(), lambda: f"control socket of {self.name}: {self.log}"
        )

    @property
    def socket_dir(self) -> Path:
        return self.directory / "run"

    @property
    def workers(self) -> list[int]:
        """Process ids of nginx's workers."""
        assert self.sidecar is not None
        return [
            int(pid)
            for pid in subprocess.run(
                ["pgrep", "-P", str(self.sidecar.pid)], check=False, capture_output=True, text=True
            ).stdout.split()
        ]

    def control(self, method: str, path: str, body: bytes = b"") -> tuple[int, JSON]:
        """One request on the control socket."""
        connection = ControlConnection(self.socket_dir / "control.sock")
        try:
            connection.request(method, path, body)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def update(self, update: Update | JSON) -> tuple[int, JSON]:
        return self.control("PUT", "/v1/state", msgspec.json.encode(update))

    @property
    def version(self) -> int:
        return int(self.control("GET", "/v1/state")[1]["version"])

    def state(self) -> State:
        """What the control plane would tell this pod's sidecar."""
        world = self.world
        mode = self.mode or world.mode
        state: dict[str, Entry] = {
            "settings": Settings(
                mtls_mode=mode,
                trust_domain=self.issuer.trust_domain,
                client_max_body_size=self.body_size,
                log_level=self.log_level,  # type: ignore[arg-type]
                log_format=self.log_format,  # type: ignore[arg-type]
                addresses=[self.address, self.address6],
                labels={"pod": self.name, "namespace": "test"},
                sampler_ratio=self.sampler_ratio,
            ),
            "identity": self.identity or replace(self.issuer.identity(self.spiffe_id), federated=self.federated),
        }
        for port, protocol in self.ports.items():
            state[f"inbound/{port}"] = self.inbound.get(port) or Inbound(protocols=[protocol])
        for pod in world.pods:
            for port, protocol in pod.ports.items():
                endpoints = {f"{pod.address}:{port}": pod.endpoint(mode)}
                cluster = f"{pod.address}:{port}"
                state[f"destination/{cluster}"] = Destination(protocol=protocol, cluster=cluster)
                state[f"cluster/{cluster}"] = Cluster(lb_method="round_robin", endpoints=endpoints)
        for service in world.services:
            for port, (target, protocol) in service.ports.items():
                name = f"test/{service.name}:{port}"
                families = (
                    (service.vip, "", lambda pod: pod.address),
                    (service.vip6, "6", lambda p: f"[{p.address6}]"),
                )
                for vip, suffix, address in families:
                    host = f"[{vip}]" if ":" in vip else vip
                    state[f"destination/{host}:{port}"] = Destination(protocol=protocol, cluster=name + suffix)
                    state[f"cluster/{name}{suffix}"] = Cluster(
                        lb_method=service.lb_method,
                        endpoints={
                            f"{address(pod)}:{target}": pod.endpoint(mode)
                            for pod in service.pods
                            if pod.meshed or mode != "strict"
                        },
                    )
        return state | world.policies  # type: ignore[return-value]

    def endpoint(self, client_mode: MtlsMode) -> Endpoint:
        """This pod as a client in `client_mode` is told of it."""
        tls = self.meshed and client_mode != "off" and (self.mode or self.world.mode) != "off"
        expected = (self.expected_id or str(self.spiffe_id)) if tls else ""
        return Endpoint(tls=tls, spiffe_id=expected, labels={"dst_pod": self.name})


class World:
    """Pods, services, an authority; a context manager that leaves nothing behind."""

    def __init__(self, mode: MtlsMode = "permissive") -> None:
        self.mode = mode
        self.image = ensure_image(lambda _: None)
        self.authority = Authority()
        self.pods: list[Pod] = []
        self.services: list[Service] = []
        # More entries, and others than these; of every pod.
        self.policies: dict[str, Entry] = {}
        self.processes: list[subprocess.Popen[Any]] = []
        self._name = f"nsmt-{secrets.token_hex(3)}"
        self._versions = itertools.count(time.time_ns() // 1_000_000)

    def __enter__(self) -> World:
        self.directory = Path(tempfile.mkdtemp(prefix="nsmt-"))
        self.directory.chmod(0o755)
        _run("ip", "netns", "add", self._name)
        self._link("link", "add", "br0", "type", "bridge")
        self._link("addr", "add", "10.77.255.254/16", "dev", "br0")
        self._link("addr", "add", "fd77::ffff/64", "dev", "br0", "nodad")
        self._link("link", "set", "br0", "up")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            for pod in self.pods:
                if pod.meshed:
                    print(f"--- log of {pod.name}'s sidecar\n{pod.log[-4000:]}", file=sys.stderr)
        for namespace in [pod.namespace for pod in self.pods] + [self._name]:
            found = subprocess.run(["ip", "netns", "pids", namespace], check=False, capture_output=True, text=True)
            for pid in found.stdout.split():
                with suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
        for process in self.processes:
            process.kill()
            process.wait()
            if process.stdout:
                process.stdout.close()
        for namespace in [pod.namespace for pod in self.pods] + [self._name]:
            subprocess.run(["ip", "netns", "del", namespace], check=False)
        crashed = [pod.name for pod in self.pods if pod.meshed and "exited on signal 11" in pod.log]
        shutil.rmtree(self.directory, ignore_errors=True)
        assert not crashed, f"a worker of the sidecar crashed in {crashed}"

    def _link(self, *arguments: str) -> None:
        _run("ip", "-n", self._name, *arguments)

    def pod(
        self,
        name: str,
        ports: Mapping[int, PortProtocol] | None = None,
        *,
        meshed: bool = True,
        mode: MtlsMode | None = None,
        conf: str = "",
    ) -> Pod:
        """Add a pod and start its sidecar, which has no state before `push`; `conf` replaces its nginx.conf."""
        number = len(self.pods) + 1
        namespace = f"{self._name}-{number}"
        directory = self.directory / name
        (directory / "run").mkdir(parents=True)
        (directory / "run").chmod(0o700)
        os.chown(directory / "run", SIDECAR_UID, SIDECAR_UID)
        (directory / "log").touch()
        pod = Pod(self, name, f"10.77.0.{number}", f"fd77::{number:x}", ports or {}, meshed, namespace, directory, mode)
        pod.conf = conf
        _run("ip", "netns", "add", namespace)
        self.pods.append(pod)
        _run("ip", "-n", namespace, "link", "set", "lo", "up")
        self._link("link", "add", f"pod{number}", "type", "veth", "peer", "name", "eth0", "netns", namespace)
        self._link("link", "set", f"pod{number}", "master", "br0", "up")
        _run("ip", "-n", namespace, "addr", "add", f"{pod.address}/16", "dev", "eth0")
        _run("ip", "-n", namespace, "addr", "add", f"{pod.address6}/64", "dev", "eth0", "nodad")
        _run("ip", "-n", namespace, "link", "set", "eth0", "up")
        _run("ip", "-n", namespace, "route", "add", "default", "via", "10.77.255.254")
        _run("ip", "-n", namespace, "route", "add", "default", "via", "fd77::ffff")
        if meshed:
            pod.start_sidecar()
        return pod

    def outside(self, address: str) -> None:
        """Give the bridge's own namespace another address: a place outside the mesh."""
        self._link("addr", "add", f"{address}/32", "dev", "br0")

    def serve_outside(self, peer: str, *arguments: str) -> Peer:
        """Start a server there."""
        holder = Pod(self, "outside", "", "", {}, False, self._name, self.directory)
        return holder.serve(peer, *arguments)

    def service(
        self,
        name: str,
        ports: Mapping[int, tuple[int, PortProtocol]],
        pods: Sequence[Pod],
        lb_method: LbMethod = "round_robin",
    ) -> Service:
        """Add a service; it is known to sidecars after `push`."""
        number = len(self.services) + 1
        service = Service(name, f"10.96.0.{number}", f"fd96::{number:x}", ports, list(pods), lb_method)
        self.services.append(service)
        return service

    def next_version(self) -> int:
        return next(self._versions)

    def push(self, pods: Iterable[Pod] | None = None) -> None:
        """Tell sidecars the whole state as it is now, and see that they run it."""
        for pod in pods if pods is not None else self.pods:
            if pod.meshed:
                version = self.next_version()
                answer = pod.update(Update(base=None, version=version, set_=pod.state()))
                assert answer == (200, {"version": version}), answer


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True)
