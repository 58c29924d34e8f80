"""The opponents: transformers' Trainer and generate, and CTranslate2, each as it is at its best."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments

from convmodel_cli.data.encoding import Sequences

IGNORED = -100
_FUSED = {"activation_function": "gelu_pytorch_tanh"}  # the same function as GPT-2's, in one kernel
_NO_DROPOUT = dict.fromkeys(("attn_pdrop", "embd_pdrop", "resid_pdrop"), 0.0)
_BEST_TRAINING = {"bf16": True, "train_sampling_strategy": "group_by_length"}
_BEST_EVALUATION = {"bf16_full_eval": True, "prediction_loss_only": True}

Row = dict[str, list[int]]


def load_network(folder: Path, best: bool) -> Any:
    """The model as transformers loads it; its best has a faster activation, and no dropout."""
    composed = GPT2Config.from_pretrained(folder).activation_function == "gelu_new"
    changes = {**(_FUSED if composed else {}), **_NO_DROPOUT} if best else {}
    return GPT2LMHeadModel.from_pretrained(folder, dtype=torch.float32, **changes)


def load_tokenizer(folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(folder)


def rows_of(sequences: Sequences) -> list[Row]:
    """Every token but the first is a target. The labels are the ids, for the model shifts them itself."""
    ids = [sequences[index].ids.tolist() for index in range(len(sequences))]
    return [{"input_ids": each, "labels": [IGNORED, *each[1:]]} for each in ids]


def collate(rows: Sequence[Row]) -> dict[str, Tensor]:
    """Pad on the right to the longest row; padding is neither seen nor learned."""
    longest = max(len(row["input_ids"]) for row in rows)

    def padded(key: str, filler: int) -> Tensor:
        return torch.tensor([row[key] + [filler] * (longest - len(row[key])) for row in rows])

    mask = torch.tensor([[1] * len(row["labels"]) + [0] * (longest - len(row["labels"])) for row in rows])
    return {"input_ids": padded("input_ids", 0), "labels": padded("labels", IGNORED), "attention_mask": mask}


class _Stopwatch(TrainerCallback):  # type: ignore[misc]
    """Seconds of the steps alone, without what surrounds them."""

    seconds = 0.0

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._started = time.perf_counter()

    def on_train_end(self, *_: Any, **__: Any) -> None:
        self.seconds = time.perf_counter() - self._started


def make_trainer(network: Any, rows: list[Row], device: str, out: Path, **settings: Any) -> Trainer:
    """A Trainer that writes, logs and reports nothing."""
    arguments = TrainingArguments(
        output_dir=str(out),
        use_cpu=device == "cpu",
        save_strategy="no",
        logging_strategy="no",
        report_to=[],
        disable_tqdm=True,
        seed=0,
        **settings,
    )
    return Trainer(network, arguments, data_collator=collate, train_dataset=rows, eval_dataset=rows)


def train(
    network: Any, rows: list[Row], best: bool, device: str, out: Path, *, batch_size: int, rate: float, epochs: int = 1
) -> float:
    """Train in place with AdamW; returns the seconds of the steps."""
    settings = _BEST_TRAINING if best else {}
    trainer = make_trainer(
        network,
        rows,
        device,
        out,
        per_device_train_batch_size=batch_size,
        learning_rate=rate,
        num_train_epochs=epochs,
        **settings,
    )
    watch = _Stopwatch()
    trainer.add_callback(watch)
    trainer.train()
    return watch.seconds


def evaluate(network: Any, rows: list[Row], best: bool, device: str, out: Path, batch_size: int) -> tuple[float, float]:
    """(seconds, loss) of the Trainer's evaluation; at its best rows of like length stand together."""
    settings = _BEST_EVALUATION if best else {}
    rows = sorted(rows, key=lambda row: -len(row["labels"])) if best else rows
    trainer = make_trainer(network, rows, device, out, per_device_eval_batch_size=batch_size, **settings)
    started = time.perf_counter()
    found = trainer.evaluate()
    return time.perf_counter() - started, float(found["eval_loss"])


def bits_per_byte(network: Any, sequences: Sequences, batch_size: int = 8) -> float:
    """Nats of all targets in bits, by the bytes of what they spell, in fp32."""
    rows = sorted(rows_of(sequences), key=lambda row: len(row["labels"]))
    nats = 0.0
    network.eval()
    with torch.inference_mode():
        for start in range(0, len(rows), batch_size):
            batch = collate(rows[start : start + batch_size])
            labels = batch.pop("labels")[:, 1:]
            logits = network(**batch).logits[:, :-1]
            losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
            nats += float(losses)
    return nats / math.log(2) / int(sequences.num_bytes.sum())


def generate(network: Any, contexts: Sequence[Sequence[int]], end: int, **settings: Any) -> list[list[int]]:
    """Greedy responses of transformers' generate to a batch of contexts, padded on the left, without the end token."""
    longest = max(map(len, contexts))
    ids = torch.tensor([[end] * (longest - len(context)) + list(context) for context in contexts])
    mask = torch.tensor([[0] * (longest - len(context)) + [1] * len(context) for context in contexts])
    with torch.inference_mode():
        output = network.generate(input_ids=ids, attention_mask=mask, do_sample=False, pad_token_id=end, **settings)
    found = [row[longest:].tolist() for row in output]
    return [row[: row.index(end)] if end in row else row for row in found]


def convert_to_ctranslate2(folder: Path, precision: str, threads: int, to: Path) -> Any:
    """A CTranslate2 model of the same weights; `precision` is float32 or int8."""
    import ctranslate2

    if not to.exists():
        ctranslate2.converters.TransformersConverter(str(folder)).convert(str(to), quantization=precision)
    return ctranslate2.Generator(str(to), device="cpu", compute_type=precision, intra_threads=threads)
