"""Ask the Hugging Face hub what a repository holds, at one commit."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from cortex_core.errors import PreflightFailed
from cortex_neuron.sources.parse import stays_inside

_LIST_SECS = 10.0
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_NOT_NAME = re.compile(r"[^A-Za-z0-9._-]")
_TRUE = {"1", "on", "yes", "true"}


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteFile:
    """One file. `digest` names its content; it is `sha256` where that is known, else git's own."""

    size: int
    digest: str
    sha256: bool = False


@dataclass(frozen=True, slots=True)
class Listing:
    """What a repository holds at one commit, so that all of a download is of one piece."""

    commit: str
    files: Mapping[str, RemoteFile]


def list_files(repo: str, revision: str | None, environment: Mapping[str, str]) -> Listing | None:
    """Return what `repo` holds at `revision`, None when the hub is out of reach.

    Raises PreflightFailed `not_found` for what the hub does not have, or not for us.
    """
    if environment.get("HF_HUB_OFFLINE", "").lower() in _TRUE:
        return None
    # The client takes a while to import, and a node without such sources never needs it.
    try:
        import huggingface_hub as client  # noqa: PLC0415 - slow to import
        from huggingface_hub import errors  # noqa: PLC0415 - slow to import
    except ImportError:
        return None
    api = client.HfApi(endpoint=environment.get("HF_ENDPOINT"), token=environment.get("HF_TOKEN"))
    try:
        info = api.model_info(repo, revision=revision, files_metadata=True, timeout=_LIST_SECS)
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        gated = isinstance(error, errors.GatedRepoError)
        raise refused(repo, revision, gated=gated) from error
    except (_transport_error(), OSError):
        return None
    commit = info.sha or revision or "main"
    files = {}
    for one in info.siblings or ():
        # Names become paths below the cache.
        if not stays_inside(one.rfilename):
            continue
        sha256 = one.lfs.sha256 if one.lfs is not None else None
        # An old hub may name no digest; the place of the file is then as good a name.
        digest = sha256 or one.blob_id or _NOT_NAME.sub("-", f"{commit}-{one.rfilename}")
        files[one.rfilename] = RemoteFile(
            size=one.size or 0, digest=digest, sha256=sha256 is not None
        )
    if not all(map(_NAME.fullmatch, (commit, *(file.digest for file in files.values())))):
        raise PreflightFailed("fetch_failed", f"the hub describes {repo} in a way it cannot be")
    return Listing(commit, files)


def branches(repo: str, environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return the branches and tags of `repo`; none when the hub does not say."""
    import huggingface_hub as client  # noqa: PLC0415 - slow to import

    api = client.HfApi(endpoint=environment.get("HF_ENDPOINT"), token=environment.get("HF_TOKEN"))
    try:
        refs = api.list_repo_refs(repo)
    except (_transport_error(), OSError):
        return ()
    return tuple(dict.fromkeys(one.name for one in (*refs.branches, *refs.tags)))


def address(repo: str, name: str, commit: str, environment: Mapping[str, str]) -> str:
    """Return where the hub serves a file."""
    import huggingface_hub as client  # noqa: PLC0415 - slow to import

    return client.hf_hub_url(repo, name, revision=commit, endpoint=environment.get("HF_ENDPOINT"))


def credentials(environment: Mapping[str, str]) -> Mapping[str, str]:
    """Return the headers with which the hub knows this node."""
    import huggingface_hub as client  # noqa: PLC0415 - slow to import

    token = environment.get("HF_TOKEN") or client.get_token()
    return {"authorization": f"Bearer {token}"} if token else {}


def refused(repo: str, revision: str | None, *, gated: bool) -> PreflightFailed:
    """Return the error for a repository that the hub does not give us."""
    if gated:
        return PreflightFailed(
            "not_found", f"{repo} is gated: accept its terms and give the node an HF_TOKEN"
        )
    at = f" at revision {revision!r}" if revision else ""
    return PreflightFailed(
        "not_found", f"the Hugging Face hub has no repository {repo}{at}, or it is private"
    )


def _transport_error() -> type[Exception]:
    """Return what the hub's HTTP client raises, whichever client this version of it uses."""
    from huggingface_hub import errors  # noqa: PLC0415 - slow to import

    found = next(c for c in errors.HfHubHTTPError.__mro__ if c.__name__ == "HTTPError")
    return found if issubclass(found, Exception) else OSError
