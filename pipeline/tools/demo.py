"""`maskgit demo`: serves a web page to try a model, until Ctrl-C."""

import os
import tempfile
import threading
from contextlib import suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING

from PIL import Image

from pipeline.runtime.errors import UserError
from pipeline.runtime.limits import PICTURE_BYTES, PICTURE_FORMATS, PICTURE_PIXELS
from pipeline.runtime.process import end_when_told

if TYPE_CHECKING:
    from pipeline.api.model import MaskGIT

PORT = 7860  # gradio's default
WAITING = 16  # with this many queued requests, the page reports that it is busy


def require_gradio() -> None:
    """Raise a `UserError` if gradio, an optional dependency, is not installed."""
    if find_spec("gradio") is None:
        way_out = "run `pip install 'maskgit-pipeline[demo]'` (a clone: `pip install -e '.[demo]'`)"
        raise UserError("`maskgit demo`", "gradio is not installed", way_out)


def serve(model: "MaskGIT", host: str, port: int) -> None:
    """Serve the page for a model on `port`, which must be free, until Ctrl-C."""
    guard_uploads()
    # `kill` stops the server as Ctrl-C does, so that no picture is left behind.
    end_when_told()
    with tempfile.TemporaryDirectory(prefix="maskgit-demo-") as folder, suppress(KeyboardInterrupt):
        # Gradio reads its temporary folder and the telemetry switch when it is imported.
        os.environ |= {"GRADIO_TEMP_DIR": folder, "GRADIO_ANALYTICS_ENABLED": "False"}
        # Gradio requests the page to check that the server is up; a proxy may not reach the page.
        others = os.environ.get("no_proxy") or os.environ.get("NO_PROXY", "")
        os.environ["no_proxy"] = f"{others},{host},localhost"
        from pipeline.tools.demo_page import CSS, build

        page = build(model).queue(max_size=WAITING)
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
            css=CSS,
        )
        print(f"the page is at {page.local_url} (Ctrl-C stops the server)", flush=True)
        try:
            threading.Event().wait()
        finally:
            page.close(verbose=False)


def guard_uploads() -> None:
    """Let Pillow open only the formats that the pipeline reads: gradio passes any upload to Pillow,
    and some of Pillow's decoders start programs."""
    Image.init()
    Image.ID[:] = [name for name in Image.ID if name in PICTURE_FORMATS]
    Image.MAX_IMAGE_PIXELS = PICTURE_PIXELS // 2  # Pillow refuses more than twice this
