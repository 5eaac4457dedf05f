"""Where a local mesh keeps its files, and the names of its network namespaces."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?")
_ROOT = re.compile(r"/[A-Za-z0-9._/-]*")
_SHORT_ID = re.compile(r"[0-9a-f]{10}")
_UNIX_PATH_MAX = 107
_LONGEST_SOCKET = "control.sock"


class MeshPaths:
    """The paths of the mesh called `name`.

    Files that must not survive a reboot (records of pods, sockets, secrets) are below /run/nginx-mesh/NAME, all others
    (the store, the containers' file systems, logs) below /var/lib/nginx-mesh/NAME. Both directories have mode 0700 and
    belong to root. The environment variable NGINX_MESH_ROOT puts both below another directory. Raises ValueError when
    the path of a unix socket would be too long.
    """

    def __init__(self, name: str, root: Path | None = None) -> None:
        if not _NAME.fullmatch(name):
            raise ValueError(f"mesh name {name!r}: must be a DNS label of at most 40 characters")
        self.name = name
        self.root = Path(root or os.environ.get("NGINX_MESH_ROOT") or "/")
        if not _ROOT.fullmatch(str(self.root)):
            raise ValueError(f"NGINX_MESH_ROOT {str(self.root)!r}: must be an absolute path of plain characters")
        self.run = self.root / "run/nginx-mesh" / name
        self.state = self.root / "var/lib/nginx-mesh" / name
        if len(str(self.pod_socket_dir("") / _LONGEST_SOCKET)) > _UNIX_PATH_MAX:
            raise ValueError(f"{self.run}: too long for the path of a unix socket")

    @property
    def pods(self) -> Path:
        """One directory per pod, named by `short_id`: records and projected volumes."""
        return self.run / "pods"

    @property
    def pod_disks(self) -> Path:
        """One directory per pod: the containers' writable layers and emptyDir volumes."""
        return self.state / "pods"

    @property
    def sockets(self) -> Path:
        """One directory per pod, which its sidecar and the node share."""
        return self.run / "s"

    @property
    def dns(self) -> Path:
        """The DNS server's directory: the zone snapshot and the server's lock."""
        return self.run / "dns"

    @property
    def identity_file(self) -> Path:
        """The mesh's own configuration of identity; the file exists only if the mesh was given one."""
        return self.state / "identity.json"

    @property
    def dashboard_lock(self) -> Path:
        """The lock that the mesh's dashboard holds as long as it runs."""
        return self.run / "dashboard.lock"

    @property
    def dashboard_url(self) -> Path:
        """The file with the URL of the dashboard."""
        return self.run / "dashboard.url"

    @property
    def logs(self) -> Path:
        """One directory of container logs per pod, and the daemon's own log."""
        return self.state / "logs"

    @property
    def shared_roots(self) -> tuple[Path, Path]:
        """The directories of all meshes, which containers must not read."""
        return self.run.parent, self.state.parent

    @property
    def node_netns(self) -> str:
        """The name of the network namespace that is the node."""
        return f"nsm-{self.name}"

    def pod_netns(self, uid: str) -> str:
        """The name of a pod's network namespace. No mesh name has a dot, so the names of two meshes never collide."""
        return f"{self.node_netns}.{short_id(uid)}"

    def pod_dir(self, uid: str) -> Path:
        """The directory of one pod's records and projected volumes."""
        return self.pods / short_id(uid)

    def pod_disk(self, uid: str) -> Path:
        """The directory of one pod's writable layers and emptyDir volumes."""
        return self.pod_disks / short_id(uid)

    def pod_logs(self, uid: str) -> Path:
        """The directory of one pod's logs, `CONTAINER.log` each."""
        return self.logs / short_id(uid)

    def pod_socket_dir(self, uid: str) -> Path:
        """The directory that a pod's sidecar and the node share. It has the sidecar's control socket."""
        return self.sockets / short_id(uid)

    def workload_api_dir(self, uid: str) -> Path:
        """The directory with the pod's own SPIFFE Workload API socket."""
        return self.run / "w" / short_id(uid)

    def make(self) -> None:
        """Create the directories. Idempotent."""
        for directory in (*self.shared_roots, self.run, self.state):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            directory.chmod(0o700)
        for directory in (self.pods, self.pod_disks, self.logs, self.sockets, self.workload_api_dir("").parent):
            directory.mkdir(mode=0o700, exist_ok=True)


def is_short_id(name: str) -> bool:
    """Whether a name has the form of a `short_id`."""
    return bool(_SHORT_ID.fullmatch(name))


def short_id(uid: str) -> str:
    """Ten hexadecimal digits that stand for a uid or a name in the names of files and interfaces."""
    return hashlib.sha256(uid.encode()).hexdigest()[:10]
