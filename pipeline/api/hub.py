"""Models on the Hugging Face Hub, by its own client: what is downloaded is safetensors and JSON."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.api.saved import FILES
from pipeline.runtime.errors import UserError
from pipeline.runtime.failures import in_a_line

ANSWER = 15  # seconds that the Hub may take to say what a repository holds


def download(repository: str, revision: str | None) -> Path:
    """The folder of a repository's files, downloaded unless the client's cache has them.

    Raises:
        UserError: it is no name of a repository and no folder; there is none; or it is neither
            reachable nor in the cache.
    """
    from huggingface_hub import snapshot_download

    if repository.count("/") != 1 or repository.startswith((".", "/", "~")):
        raise UserError(
            f"{repository} is neither a folder that exists nor a repository of the Hub "
            f"(owner/name); give one"
        )
    with _one_line(f"{repository} is no folder here, and the Hub does not give it"):
        silent = _is_silent(repository, revision)
        try:
            folder = snapshot_download(
                repository, revision=revision, allow_patterns=FILES, local_files_only=silent
            )
        except Exception:
            if silent:
                raise TimeoutError(f"no answer within {ANSWER} seconds") from None
            raise
    return Path(folder)


def _is_silent(repository: str, revision: str | None) -> bool:
    """Whether the Hub takes connections and does not answer: its client would wait for ever. What
    else is wrong, or that there is no network, it says itself."""
    from huggingface_hub import HfApi

    try:
        HfApi().repo_info(repository, revision=revision, timeout=ANSWER)
    except Exception as error:
        return "timeout" in type(error).__name__.lower() or "timed out" in str(error)
    return False


def push(save: Callable[[Path], Path], repository: str, private: bool, token: str | None) -> str:
    """Upload what `save` writes to a folder; the repository's address."""
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    with tempfile.TemporaryDirectory() as temporary:
        folder = save(Path(temporary) / "model")
        with _one_line(f"{repository}: the Hub does not take it"):
            url = api.create_repo(repository, private=private, exist_ok=True)
            api.upload_folder(repo_id=repository, folder_path=folder, commit_message="Save MaskGIT")
    return str(url)


@contextmanager
def _one_line(what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # of the network, which have many
        raise UserError(
            f"{what} ({in_a_line(error)[:200]}); check the name, the network, and `hf auth login`"
        ) from error
