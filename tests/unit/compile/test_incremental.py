"""Incremental compilation ends with the same state as compilation from scratch, whatever the order of events."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from nginx_mesh.api.meta import Object, ObjectKey
from nginx_mesh.api.settings import MeshSettings
from nginx_mesh.catalog.catalog import Catalog
from nginx_mesh.catalog.changes import Changes, Delete, Event, Upsert, union
from nginx_mesh.compile.check import check
from nginx_mesh.compile.engine import Compiler, compile_state
from nginx_mesh.node.overlay import IdentityOverlay
from nginx_mesh.protocol.state import Identity

from . import objects
from .objects import SidecarState

NAMESPACES = ("red", "blue")
# Most events are about the same few objects, or else objects would hardly ever refer to each other.
namespaces = st.sampled_from(("red", "red", "red", "blue"))
mostly = st.sampled_from((True, True, True, False))
MODES = ("off", "permissive", "strict", "strcit")
IPS = ("10.0.0.1", "10.0.0.2", "10.0.0.3", "fd00::1", "fd00::2", "not an address")
VIPS = ("10.96.0.1", "10.96.0.2", "fd00:96::1", "10.0.0.1")
NAMES = ("a", "b", "c")
KINDS = [
    "Pod",
    "Service",
    "EndpointSlice",
    "TrafficTarget",
    "HTTPRouteGroup",
    "TCPRoute",
    "RateLimit",
    "TrafficSplit",
    "CircuitBreaker",
    "Other",
]
NUMBERS = (80, 8080, 9090)
PEERS = ("spiffe://other.example/ns/x/sa/y", "spiffe://other.example/z", "spiffe://other.example", "http://z")

names = st.sampled_from(NAMES)
labels = st.fixed_dictionaries(
    {"app": st.sampled_from(("a", "a", "b"))}, optional={"tier": names, "nsm.nginx.com/deployment": names}
)
created = st.sampled_from(("", "2024-01-01T00:00:00Z", "2024-01-02T00:00:00Z"))


def some_annotations(*options: tuple[str, tuple[str, ...]]) -> st.SearchStrategy[dict[str, str]]:
    return st.fixed_dictionaries({}, optional={key: st.sampled_from(values) for key, values in options})


pods = st.builds(
    objects.pod,
    names,
    namespace=namespaces,
    ips=st.lists(st.sampled_from(IPS), max_size=2, unique=True),
    labels=labels,
    annotations=some_annotations(
        ("config.nsm.nginx.com/mtls-mode", MODES),
        ("config.nsm.nginx.com/client-max-body-size", ("1k", "huge")),
        ("config.nsm.nginx.com/ignore-incoming-ports", ("8080", "http")),
    ),
    account=st.sampled_from(("", "x", "x", "y", "not/a name")),
    ports=st.lists(
        st.tuples(st.sampled_from(NUMBERS), st.sampled_from(("", "http", "grpc-web", "web"))), min_size=1, max_size=2
    ),
    meshed=mostly,
    ready=mostly,
    phase=st.sampled_from(("Running", "Running", "Running", "Succeeded")),
    created=created,
    deleting=mostly.map(lambda often: not often),
)
service_ports = st.builds(
    objects.port,
    st.sampled_from(NUMBERS),
    st.sampled_from(("", "http", "tcp-x")),
    target=st.sampled_from((None, 8080, 8080, "http", "web")),
    app_protocol=st.sampled_from((None, "grpc", "nonsense")),
    protocol=st.sampled_from(("TCP", "TCP", "TCP", "UDP")),
)
services = st.builds(
    lambda name, ports, **rest: objects.service(name, *ports, **rest),
    names,
    st.lists(service_ports, min_size=1, max_size=2),
    namespace=namespaces,
    vips=st.lists(st.sampled_from(VIPS), max_size=2, unique=True),
    selector=st.sampled_from(({"app": "a"}, {"app": "a"}, {"app": "b"}, {"app": "a", "tier": "a"}, {}, {})),
    annotations=some_annotations(
        ("config.nsm.nginx.com/lb-method", ("random", "best")), ("config.nsm.nginx.com/peer-spiffe-id", PEERS)
    ),
    publish_not_ready=st.booleans(),
)
slices = st.builds(
    objects.slice_,
    names,
    names,
    st.dictionaries(st.sampled_from(IPS), st.sampled_from((None, True, True, False)), max_size=3),
    st.dictionaries(st.sampled_from(("", "", "http", "tcp-x")), st.sampled_from((*NUMBERS, None, 0)), max_size=2),
    namespace=namespaces,
    labels=st.sampled_from(({}, {}, {}, {"endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"})),
    protocol=st.sampled_from(("TCP", "TCP", "TCP", "UDP")),
)
rules = st.lists(
    st.one_of(
        st.builds(lambda name, matches: objects.http(name, *matches), names, st.lists(names, max_size=1)),
        st.builds(objects.tcp, names),
    ),
    max_size=2,
)
targets = st.builds(
    lambda name, account, sources, rules, **rest: objects.target(name, account, sources, *rules, **rest),
    names,
    st.sampled_from(("default", "x")),
    st.lists(st.sampled_from(("x", "y", "not/a name")), max_size=2),
    rules,
    namespace=namespaces,
    port=st.sampled_from((None, 8080)),
    created=created,
)
matches = st.fixed_dictionaries(
    {"name": names},
    optional={"pathRegex": st.just("/x"), "headers": st.just({"A": "1", "a": "2"}), "methods": st.just(["*"])},
)
groups = st.builds(
    lambda name, matches, **rest: objects.group(name, *matches, **rest),
    names,
    st.lists(matches, max_size=2),
    namespace=namespaces,
)
references = st.tuples(st.sampled_from(("Service", "Deployment", "Pod")), names)
limits = st.builds(
    lambda name, destination, rate, rules, **rest: objects.limit(name, destination, rate, *rules, **rest),
    names,
    references,
    st.sampled_from(("10r/s", "10r/s", "often")),
    st.lists(st.builds(objects.http, names), max_size=1),
    sources=st.lists(references, max_size=2),
    namespace=namespaces,
    created=created,
)
splits = st.builds(
    lambda name, root, backends, groups, **rest: objects.split(name, root, backends, *groups, **rest),
    names,
    names,
    st.dictionaries(names, st.sampled_from((0, 1, 90, -1)), max_size=3),
    st.lists(names, max_size=1),
    namespace=namespaces,
    created=created,
)
breakers = st.builds(
    objects.breaker,
    names,
    names,
    errors=st.sampled_from((1, 5, 5, 0, 20_000)),
    seconds=st.sampled_from((1, 30, 0)),
    fallback=st.none() | st.sampled_from(("red/a", "red/b", "red/c", "blue/a", "a")),
    fallback_port=st.sampled_from(NUMBERS),
    namespace=namespaces,
    destination_namespace=st.sampled_from(("", "", "red")),
    created=created,
)
things: st.SearchStrategy[Object] = st.one_of(
    pods,
    pods,
    services,
    services,
    slices,
    slices,
    targets,
    groups,
    st.builds(objects.tcp_route, names, namespaces),
    limits,
    splits,
    splits,
    breakers,
    breakers,
)
settings_of_mesh = st.builds(
    MeshSettings,
    mtls_mode=st.sampled_from(("off", "permissive", "strict")),
    access_control_mode=st.sampled_from(("allow", "deny")),
    lb_method=st.sampled_from(("least_time", "round_robin")),
)
identities = st.builds(
    lambda key: Identity(spiffe_id="spiffe://example.org/x", svid="", key=key, bundle=""), st.sampled_from(("1", "2"))
)
BEGINNING: tuple[Object, ...] = (
    objects.pod("a", namespace="red", ips=["10.0.0.1", "fd00::1"], labels={"app": "a"}, ports=[(8080, "web")]),
    objects.pod("b", namespace="red", ips=["10.0.0.2"], labels={"app": "a"}, account="x", ports=[(8080, "")]),
    objects.pod("c", namespace="blue", ips=["10.0.0.3"], labels={"app": "a"}, account="x"),
    objects.service("a", objects.port(80, target=8080), namespace="red", selector={"app": "a"}),
    objects.service(
        "b",
        objects.port(80, "http"),
        namespace="red",
        vips=["10.96.0.2"],
        selector={},
        annotations={"config.nsm.nginx.com/peer-spiffe-id": PEERS[0]},
    ),
    objects.slice_("a", "b", {"10.0.0.9": True}, {"http": 8080}, namespace="red"),
    objects.target("a", "x", ["x"], objects.http("a"), namespace="red"),
    objects.group("a", {"name": "a", "pathRegex": "/"}, namespace="red"),
    objects.limit("a", ("Service", "a"), "10r/s", sources=[("Pod", "a"), ("Pod", "b")], namespace="red"),
    objects.split("a", "a", {"b": 1, "c": 2}, namespace="red"),
    objects.breaker("a", "a", fallback="red/b", namespace="red"),
)
steps = st.lists(
    st.one_of(
        things,
        things,
        st.builds(
            lambda kind, namespace, name: Delete(ObjectKey(kind, namespace, name)),
            st.sampled_from(KINDS),
            namespaces,
            names,
        ),
        settings_of_mesh,
        st.tuples(st.builds(objects.pod_key, names, namespaces), st.none() | identities),
        st.sets(st.builds(objects.pod_key, names, namespaces)),
        st.just("fetch"),
        st.just("compile"),
    ),
    min_size=10,
    max_size=40,
)


def plain(value: Any) -> Any:
    return msgspec.json.decode(msgspec.json.encode(value))


class Run:
    """A catalog and a compiler that follow events, and sidecars that fetch updates at given steps."""

    def __init__(self, memory: int) -> None:
        self.catalog = Catalog()
        self.settings = MeshSettings()
        self.compiler = Compiler(self.catalog, self.settings, first_version=100, changelog_capacity=memory)
        self.pending: list[Changes] = []
        self.alive: dict[ObjectKey, Object] = {}
        self.overlay = IdentityOverlay(self.compiler.update_for, first_version=5000)
        self.identities: dict[ObjectKey, Identity] = {}
        self.sidecars: dict[ObjectKey, SidecarState] = {}
        for obj in BEGINNING:
            self.step(obj)
        self.step("fetch")

    def step(self, step: Any) -> None:
        if isinstance(step, Object):
            self.alive[step.key] = step
            self.event(Upsert(step))
        elif isinstance(step, Delete):
            self.alive.pop(step.key, None)
            self.event(step)
        elif isinstance(step, MeshSettings):
            self.compile()
            self.settings = step
            self.compiler.configure(step)
        elif isinstance(step, tuple):
            self.compile()
            pod, identity = step
            self.identities.pop(pod, None)
            if identity is not None:
                self.identities[pod] = identity
            self.overlay.set_identity(pod, identity)
        elif isinstance(step, set):
            self.compile()
            for pod in step:
                self.fetch(pod)
        else:
            self.compile()
            for pod in self.compiler.sidecars() if step == "fetch" else ():
                self.fetch(pod)

    def event(self, event: Event) -> None:
        self.pending.append(self.catalog.apply(event))

    def compile(self) -> None:
        version, before = self.compiler.version, self.compiler.sidecars()
        touched = self.compiler.apply(union(Changes(), *self.pending))
        self.pending = []
        for pod in before & self.compiler.sidecars() - self.compiler.sidecars(touched):
            update = self.compiler.update_for(pod, version)
            assert update is not None
            assert (update.set_, update.delete, update.endpoints) == ({}, [], {}), "a change that nobody was told of"

    def fetch(self, pod: ObjectKey) -> None:
        sidecar = self.sidecars.setdefault(pod, SidecarState())
        update = self.overlay.update_for(pod, sidecar.version)
        if update is not None:
            sidecar.take(update)


@settings(max_examples=300, deadline=None)
@given(steps, st.sampled_from((1, 4, 1000)))
def test_updates_end_in_the_same_state_as_a_compilation_from_scratch(steps: list[Any], memory: int) -> None:
    run = Run(memory)
    for step in steps:
        run.step(step)
    run.compile()

    scratch = Catalog()
    for obj in sorted(run.alive.values(), key=lambda obj: obj.key):
        scratch.apply(Upsert(obj))
    for namespace in NAMESPACES:
        for name in NAMES:
            pod = objects.pod_key(name, namespace)
            expected = compile_state(scratch, run.settings, pod)
            run.fetch(pod)
            assert (expected is not None) == (pod in run.compiler.sidecars())
            if expected is not None:
                if (identity := run.identities.get(pod)) is not None:
                    expected["identity"] = identity
                assert run.sidecars[pod].entries == plain(expected)
                stands_for = run.overlay.plane_version(pod, run.sidecars[pod].version)
                assert stands_for is not None and run.compiler.unchanged_since(pod, stands_for)
    warnings = {key: found for key in run.alive if (found := check(scratch, key))}
    assert run.compiler.warnings == warnings


@settings(max_examples=100, deadline=None)
@given(steps)
def test_a_compiler_that_starts_late_has_the_same_state_as_one_that_followed(steps: list[Any]) -> None:
    run = Run(1000)
    for step in steps:
        run.step(step)
    run.compile()
    late = Compiler(run.catalog, run.settings, first_version=1)
    assert late.sidecars() == run.compiler.sidecars()
    assert late.warnings == run.compiler.warnings
    for pod in late.sidecars():
        ours, theirs = late.update_for(pod, None), run.compiler.update_for(pod, None)
        assert ours is not None
        assert theirs is not None
        assert plain(ours.set_) == plain(theirs.set_)
