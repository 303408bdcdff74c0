"""The Typer application, to which each module of commands adds its own."""

import typer

app = typer.Typer(
    name="maskgit",
    help="MaskGIT (Chang et al., CVPR 2022), reproduced as a pipeline: its runs, models, results.",
    epilog="\b\nA first run, in the project's folder:\n"
    "  maskgit doctor         is this machine ready?\n"
    "  dvc repro              train, measure, and make the report\n"
    "  maskgit summary        what came out\n"
    "  maskgit sample         pictures of the model",
    no_args_is_help=True,
    rich_markup_mode=None,  # rich takes half a second to import, and wraps examples
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def examples(*lines: str) -> str:
    """The epilog of a command's help.

    Args:
        lines: what stands after `maskgit`.
    """
    title = "Examples" if len(lines) > 1 else "Example"
    return f"\b\n{title}:" + "".join(f"\n  maskgit {line}" for line in lines)
