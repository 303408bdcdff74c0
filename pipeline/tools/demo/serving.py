"""Serving the page, on this machine alone unless told otherwise, until Ctrl-C."""

import logging
import os
import signal
import tempfile
import threading
from contextlib import suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING

from PIL import Image

from pipeline.runtime.errors import UserError
from pipeline.runtime.limits import PICTURE_BYTES, PICTURE_FORMATS, PICTURE_PIXELS

if TYPE_CHECKING:
    from pipeline.api.model import MaskGIT

PORT = 7860  # gradio's usual one
WAITING = 16  # requests, before the page says that it is busy
SESSIONS = 16  # windows of which gradio keeps the settings


def require_gradio() -> None:
    """Raises: UserError: the optional dependency is not installed."""
    if find_spec("gradio") is None:
        raise UserError(
            "`maskgit demo` needs gradio, which is not installed; "
            "`pip install 'maskgit-pipeline[demo]'`, or in a clone `pip install -e '.[demo]'`"
        )


def serve(model: "MaskGIT", host: str, port: int) -> None:
    """Serve the page until Ctrl-C.

    Args:
        port: one that is free.
    """
    guard_uploads()
    # Ended by `kill` as by Ctrl-C, so that no picture stays behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="maskgit-demo-") as folder:
        # Read as gradio is imported: where pictures lie, and that nothing is reported to anyone.
        os.environ |= {"GRADIO_TEMP_DIR": folder, "GRADIO_ANALYTICS_ENABLED": "False"}
        # It asks its own page whether it is up, and a proxy may not know the way.
        others = os.environ.get("no_proxy") or os.environ.get("NO_PROXY", "")
        os.environ["no_proxy"] = f"{others},{host},localhost"
        with suppress(KeyboardInterrupt):
            _serve(model, host, port)


def _serve(model: "MaskGIT", host: str, port: int) -> None:
    from pipeline.tools.demo.page import CSS, build

    logging.getLogger("uvicorn.error").addFilter(_is_worth_saying)
    page = build(model).queue(max_size=WAITING)
    try:
        page.launch(
            server_name=host,
            server_port=port,
            prevent_thread_lock=True,
            share=False,
            quiet=True,
            ssr_mode=False,
            footer_links=[],
            run_history=False,
            enable_monitoring=False,
            max_file_size=PICTURE_BYTES,
            state_session_capacity=SESSIONS,
            css=CSS,
        )
    except OSError as error:
        if "empty port" not in str(error):
            raise
        # Another process has taken it since it was looked at.
        raise UserError(f"cannot listen on {host}, port {port} any more; run this again") from error
    print(f"the page is at {page.local_url} (Ctrl-C ends it)", flush=True)
    try:
        threading.Event().wait()
    finally:
        page.close(verbose=False)


def _is_worth_saying(record: logging.LogRecord) -> bool:
    """Whether it is more than a window that was closed while it sent something."""
    kind = record.exc_info[0] if record.exc_info else None
    return kind is None or kind.__name__ != "ClientDisconnect"


def guard_uploads() -> None:
    """Let Pillow open what the pipeline opens and nothing else: gradio gives it any upload, and
    some of its decoders start programs."""
    Image.init()
    Image.ID[:] = [name for name in Image.ID if name in PICTURE_FORMATS]
    Image.MAX_IMAGE_PIXELS = PICTURE_PIXELS // 2  # Pillow refuses twice as many
