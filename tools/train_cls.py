#!/usr/bin/env python
"""Train a classifier: tools/train_cls.py CONFIG [--data ROOT] [--cfg-options key=value ...] [--resume [CHECKPOINT]].

On several GPUs: torchrun --nproc-per-node N tools/train_cls.py CONFIG
"""

from __future__ import annotations

from transfer.train_command import main, parse_arguments

if __name__ == "__main__":
    parsed = parse_arguments("classification")  # before the imports, which take seconds: --help need not wait for them
    from transfer.cli import run

    run(lambda: main(parsed, "classification"))
