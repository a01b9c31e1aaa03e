"""What every command does around its work: logging, and a user's mistakes as one message and exit code 2."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Callable
from typing import NoReturn

from transfer.types import UserError


class _Console(logging.Handler):
    """Lines to standard error, above a progress bar where one is shown."""

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        if "tqdm" in sys.modules and sys.stderr.isatty():
            from tqdm import tqdm

            tqdm.write(text, file=sys.stderr)
        else:
            print(text, file=sys.stderr, flush=True)


def configure_logging(is_main: bool = True) -> None:
    """This project's messages from "info" on, others' from "warning" on; processes other than 0 say errors only."""
    root = logging.getLogger()
    root.handlers = [_Console()]
    root.setLevel(logging.WARNING if is_main else logging.ERROR)
    for name in ("trickstack", "transfer", "backbones"):
        logging.getLogger(name).setLevel(logging.INFO if is_main else logging.ERROR)


def _if_loaded(module: str, name: str) -> tuple[type[Exception], ...]:
    """The exception class of a module that is slow to import; nothing where it was not: then nobody has raised it."""
    loaded = sys.modules.get(module)
    return () if loaded is None else (getattr(loaded, name),)


def _mistakes() -> tuple[type[Exception], ...]:
    return (UserError, *_if_loaded("backbones.contract", "BackboneError"))


def run(main: Callable[[], int]) -> NoReturn:
    """Call `main` and exit with its code; 2 after a user's mistake, 130 after Ctrl-C, without a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names of files may be any bytes
    try:
        code = main()
    except _mistakes() as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        code = 2
    except _if_loaded("torch", "OutOfMemoryError") as error:
        print(f"error: out of memory: lower loader.batch_size or raise training.accumulate. {error}", file=sys.stderr)
        code = 2
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"error: {where}{error.strerror or error}; free the place or give another", file=sys.stderr, flush=True)
        code = 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr, flush=True)
        code = 130
    sys.exit(code)
