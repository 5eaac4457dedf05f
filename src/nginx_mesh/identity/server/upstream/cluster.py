"""Clients of the Kubernetes API server, and the explanations of their errors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import kubernetes.client
import kubernetes.config
import msgspec
import urllib3.exceptions
import yaml

from .base import UpstreamError
from .calls import CONNECT_SECONDS, NO_ANSWER, READ_SECONDS, innermost, quoted
from .config import read_named_file

TIMEOUT = (CONNECT_SECONDS, READ_SECONDS)


@contextmanager
def cluster(kube_config_file: str | None, key: str, hints: Mapping[int, str]) -> Iterator[kubernetes.client.ApiClient]:
    """A client, for one use, of the cluster that a kubeconfig names, or without one of the cluster that this pod is in.

    The configuration calls the file `key`; `hints` say what to do about an HTTP status. Blocks. Errors of the client
    within become UpstreamErrors.
    """
    try:
        with kubernetes.client.ApiClient(_configuration(kube_config_file, key)) as client:
            yield client
    except kubernetes.client.ApiException as error:
        hint = f" ({hints[error.status]})" if error.status in hints else ""
        raise UpstreamError(f"the cluster refuses: {error.status} {quoted(_said(error), ())}{hint}") from None
    except urllib3.exceptions.HTTPError as error:
        cause = getattr(error, "reason", None) or error
        # To urllib3 a refused connection is a kind of timeout.
        late = isinstance(cause, urllib3.exceptions.TimeoutError)
        if late and not isinstance(cause, urllib3.exceptions.NewConnectionError):
            raise UpstreamError(NO_ANSWER) from None
        raise UpstreamError(f"the cluster cannot be reached: {quoted(innermost(error), ())}") from None


def _configuration(path: str | None, key: str) -> kubernetes.client.Configuration:
    configuration = kubernetes.client.Configuration()
    try:
        if path is None:
            kubernetes.config.load_incluster_config(  # type: ignore[no-untyped-call]
                client_configuration=configuration
            )
        else:
            read_named_file(key, path)
            kubernetes.config.load_kube_config(  # type: ignore[no-untyped-call]
                config_file=path, client_configuration=configuration, persist_config=False
            )
    except kubernetes.config.ConfigException as error:
        where = f"there is no config.{key}, and this is no pod" if path is None else "kubeconfig"
        raise UpstreamError(f"{where}: {quoted(str(error), ())}") from None
    except (yaml.YAMLError, ValueError, TypeError, AttributeError):
        # The messages of these errors quote the file, which holds credentials.
        raise UpstreamError(f"config.{key} {path}: is not a kubeconfig") from None
    configuration.retries = 0
    return configuration


def _said(error: kubernetes.client.ApiException) -> str:
    """The message in the Status object that is the body of a refusal."""
    try:
        message = msgspec.json.decode(error.body or "")["message"]
    except (msgspec.DecodeError, KeyError, TypeError):
        message = error.reason
    return str(message)
