# SPDX-License-Identifier: Apache-2.0
"""The Arvados SDK: client objects, made of settings, and errors turned into ours. The requests are in ``client``.

It is imported when a cluster is opened, since that takes a third of a second.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import BadSettings, ClusterError, NoCluster
from ..local.settings import home_folder, user_folder
from ..model.manifest_text import BLOCK_SIZE

_CLUSTER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*", re.ASCII)
_TOKEN = re.compile(r"[!-~]+")
_SIGNATURE = re.compile(r"\+A[0-9a-f]+@[0-9a-f]+")

#: How often the first request is tried again at the most, and the seconds for each try: a wrong host must not cost the
#: minutes that a transfer may take to recover.
_FIRST_RETRIES = 2
_FIRST_TIMEOUT = 60


def client_from_settings(retries: int) -> Any:
    """A client object for the cluster of the Arvados settings (environment, ``settings.conf``); raises NoCluster
    without."""
    home_folder()  # where the SDK looks when it is loaded, whatever XDG's variables name
    import arvados.config

    try:
        settings = arvados.config.settings()
    except ValueError as error:
        raise BadSettings(f"the Arvados settings file cannot be read: {error}.") from None
    missing = [key for key in ("ARVADOS_API_HOST", "ARVADOS_API_TOKEN") if not settings.get(key)]
    if missing:
        raise NoCluster(
            f"no cluster is configured: {' and '.join(missing)} not set. Set them (or write them into "
            "~/.config/arvados/settings.conf) to use a cluster, or give --local to use a site on this machine."
        )
    _check_token(settings["ARVADOS_API_TOKEN"])
    _check_host(settings["ARVADOS_API_HOST"])
    return _build_client(f"the cluster at {settings['ARVADOS_API_HOST']}", retries)


def client_from_settings_file(name: str, retries: int) -> Any:
    """A client object for the cluster of the settings file ``<name>.conf``; raises BadSettings without."""
    import arvados.config

    path = settings_file(name)
    if path is None:
        raise BadSettings(f"there is no settings file {name}.conf beside Arvados' settings.conf.")
    try:
        settings = arvados.config.load(str(path))
    except (OSError, ValueError) as error:
        raise BadSettings(f"the settings file {path} cannot be read: {error}.") from None
    host, token = settings.get("ARVADOS_API_HOST", ""), settings.get("ARVADOS_API_TOKEN", "")
    if not host or not token:
        raise BadSettings(f"the settings file {path} lacks ARVADOS_API_HOST or ARVADOS_API_TOKEN.")
    _check_token(token)
    _check_host(host)
    insecure = arvados.config.flag_is_true("ARVADOS_API_HOST_INSECURE", settings)
    return _build_client(f"the cluster {name} at {host}", retries, host=host, token=token, insecure=insecure)


def client_at_url(url: str, token: str, retries: int) -> Any:
    """A client object for the cluster whose API is at ``url``, which may be http."""
    _check_token(token)
    discovery = f"{url}/discovery/v1/apis/{{api}}/{{apiVersion}}/rest"
    return _build_client("the local site", retries, discoveryServiceUrl=discovery, token=token)


def settings_file(name: str) -> Path | None:
    """Path of the settings of a cluster called so: ``<name>.conf`` in the folders of ``settings.conf``
    (docs/spec/arvados-clients.md#settings); None if there are none."""
    if not _CLUSTER_NAME.fullmatch(name):
        return None
    folders = [entry for entry in os.environ.get("CONFIGURATION_DIRECTORY", "").split(":") if entry]
    folders.append(str(user_folder("XDG_CONFIG_HOME", ".config") / "arvados"))
    folders += [f"{entry}/arvados" for entry in os.environ.get("XDG_CONFIG_DIRS", "/etc/xdg").split(":") if entry]
    found = (Path(folder) / f"{name}.conf" for folder in folders if folder.startswith("/"))
    return next((path for path in found if path.is_file()), None)


def call_with_our_errors(call: Callable[[], Any], what: str) -> Any:
    """Run ``call`` and return its result, with the SDK's errors turned into ClusterError, about ``what``."""
    import googleapiclient.errors
    import httplib2

    try:
        return call()
    except googleapiclient.errors.HttpError as error:
        status = int(error.resp.status)
        raise ClusterError(f"{what}: {_advice(status)}", detail=str(error), status=status) from error
    except ssl.SSLCertVerificationError as error:
        raise ClusterError(
            f"{what}: its certificate cannot be verified. Let SSL_CERT_FILE name a file with the certificate of its "
            "authority (of several clusters one file with all of them).",
            detail=str(error),
        ) from error
    except http.client.InvalidURL:
        raise
    except (
        googleapiclient.errors.InvalidJsonError,
        googleapiclient.errors.UnknownApiNameOrVersion,
        json.JSONDecodeError,
        http.client.IncompleteRead,
        http.client.BadStatusLine,
    ) as error:
        raise ClusterError(
            f"{what}: what answered is no Arvados API server, or its answer was cut short. Check ARVADOS_API_HOST, and "
            "try again.",
            detail=str(error),
        ) from error
    except (OSError, httplib2.HttpLib2Error, http.client.HTTPException, googleapiclient.errors.Error) as error:
        raise ClusterError(
            f"{what}: the server cannot be reached. Check ARVADOS_API_HOST and the network.", detail=str(error)
        ) from error


def without_signatures(text: str) -> str:
    """An error's text without the signatures of locators, which let their reader read the blocks."""
    return _SIGNATURE.sub("+A…", text)


def _build_client(where: str, retries: int, **arguments: Any) -> Any:
    import arvados

    if "://" in where:  # an address as browsers have it
        raise BadSettings(_no_host(where))
    try:
        api = call_with_our_errors(
            lambda: arvados.api("v1", num_retries=min(retries, _FIRST_RETRIES), timeout=_FIRST_TIMEOUT, **arguments),
            where,
        )
    except (ValueError, OverflowError, http.client.InvalidURL) as error:
        raise BadSettings(_no_host(where)) from error
    # Whoever reads blocks keeps those that are still needed (keep/stored.py); the SDK would hold four more.
    api.keep.block_cache.cache_max = BLOCK_SIZE
    return api


def _no_host(where: str) -> str:
    return f"{where}: this is no host, with or without a port. Check ARVADOS_API_HOST."


def _check_host(host: str) -> None:
    """Refuse a host with a user name or password in front, and show neither."""
    if "@" in host:
        raise BadSettings(
            "ARVADOS_API_HOST has a name or a password in it, where they do not belong: it is a host, with or without "
            "a port. The token goes into ARVADOS_API_TOKEN."
        )


def _check_token(token: str) -> None:
    """Refuse a text that is no token, before an HTTP client quotes the header with it in a message."""
    if not _TOKEN.fullmatch(token):
        raise BadSettings("the token in ARVADOS_API_TOKEN holds blanks, line ends or others that no token has.")


def _advice(status: int) -> str:
    return {
        401: "the server does not know this token. Check ARVADOS_API_TOKEN; it may have expired.",
        403: "the server does not allow it to this user.",
        404: "the server knows no such thing, or does not show it to this user.",
        422: "the server refuses the request.",
    }.get(status, f"the server answered with status {status}.")
