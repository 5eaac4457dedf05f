"""Clients of AWS, and the explanations of their errors, for the upstream authorities there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import boto3
import botocore.exceptions
from botocore.config import Config

from .base import UpstreamError
from .calls import CONNECT_SECONDS, NO_ANSWER, READ_SECONDS, innermost, quoted
from .config import AwsPcaConfig, AwsSecretConfig

T = TypeVar("T")

_CLIENT = Config(
    connect_timeout=CONNECT_SECONDS,
    read_timeout=READ_SECONDS,
    retries={"total_max_attempts": 2, "mode": "standard"},
    user_agent_extra="nginx-mesh",
)
_ROLE_SESSION = "nginx-mesh"

_UNKNOWN = "is the access key right, and the clock?"
_HINTS = {
    "AccessDenied": "the identity that is used lacks this right",
    "AccessDeniedException": "the identity that is used lacks this right",
    "InvalidClientTokenId": _UNKNOWN,
    "UnrecognizedClientException": _UNKNOWN,
    "InvalidSignatureException": _UNKNOWN,
    "SignatureDoesNotMatch": _UNKNOWN,
    "ExpiredTokenException": "the session token is over",
    "403": _UNKNOWN,
    "ResourceNotFoundException": "is the ARN right, and the region?",
}


def new_client(config: AwsPcaConfig | AwsSecretConfig, service: str, endpoint: str | None = None) -> Any:
    """A client of a service, for one question. Without configured credentials, they are found as AWS's tools find them.

    A role is assumed now. Its credentials are valid for an hour.
    """
    session = boto3.session.Session(
        aws_access_key_id=config.aws_access_key_id,
        aws_secret_access_key=config.aws_secret_access_key,
        aws_session_token=config.aws_secret_token if isinstance(config, AwsSecretConfig) else None,
        region_name=config.region,
    )
    if config.assume_role_arn is not None:
        sts = session.client("sts", config=_CLIENT)
        role = sts.assume_role(RoleArn=config.assume_role_arn, RoleSessionName=_ROLE_SESSION)["Credentials"]
        session = boto3.session.Session(
            aws_access_key_id=role["AccessKeyId"],
            aws_secret_access_key=role["SecretAccessKey"],
            aws_session_token=role["SessionToken"],
            region_name=config.region,
        )
    return session.client(service, config=_CLIENT, endpoint_url=endpoint)


def explained(config: AwsPcaConfig | AwsSecretConfig, function: Callable[[], T]) -> T:
    """What `function` returns. Errors of botocore become UpstreamErrors without secrets."""
    try:
        return function()
    except botocore.exceptions.ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", "no code"))
        # For a signature that does not match, AWS quotes over many lines all that was signed.
        said = str(error.response.get("Error", {}).get("Message", "")).strip().partition("\n")[0]
        hint = f" ({_HINTS[code]})" if code in _HINTS else ""
        raise UpstreamError(
            f"AWS refuses {error.operation_name}: {quoted(f'{code}: {said}', secrets_of(config))}{hint}"
        ) from None
    except botocore.exceptions.NoCredentialsError:
        raise UpstreamError(
            "no credentials: config has no aws_access_key_id, and neither the environment nor the machine has any"
        ) from None
    except (botocore.exceptions.ConnectTimeoutError, botocore.exceptions.ReadTimeoutError):
        raise UpstreamError(NO_ANSWER) from None
    except (botocore.exceptions.BotoCoreError, botocore.exceptions.HTTPClientError) as error:
        raise UpstreamError(f"AWS cannot be asked: {quoted(innermost(error), secrets_of(config))}") from None


def secrets_of(config: AwsPcaConfig | AwsSecretConfig) -> list[str]:
    """The secrets in a configuration, which no message may hold."""
    return [value for name in config.SECRETS if (value := getattr(config, name)) is not None]
