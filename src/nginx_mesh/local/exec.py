"""Commands that clients of the API run in the containers of pods."""

from __future__ import annotations

from nginx_mesh.api.meta import ObjectKey
from nginx_mesh.api.status import StatusError

from .api.containers import check_container
from .api.exec_server import ExecAnswer, ExecRequest
from .api.objects import Objects
from .node.kubelet import Kubelet, NotRunningError


class ContainerExec:
    """Runs the commands, for `ExecServer`."""

    def __init__(self, objects: Objects, kubelet: Kubelet) -> None:
        self._objects = objects
        self._kubelet = kubelet

    async def run(self, request: ExecRequest, files: list[int]) -> ExecAnswer:
        """Run a command in a container. `files` are the descriptors of its stdin, stdout and stderr."""
        key = ObjectKey("Pod", request.namespace, request.pod)
        try:
            pod = self._objects.get(key)
            container = request.container or pod["spec"]["containers"][0]["name"]
            check_container(pod, container, init=False)
        except StatusError as error:
            return ExecAnswer(error=str(error), reason=error.reason)
        stdin, stdout, stderr = files
        try:
            code = await self._kubelet.exec(key, container, request.command, stdin, stdout, stderr, tty=request.tty)
        except NotRunningError as error:
            return ExecAnswer(error=str(error), reason="BadRequest")
        return ExecAnswer(exit_code=code)
