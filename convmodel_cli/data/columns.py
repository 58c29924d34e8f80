"""Rows of columns -> records: Parquet files, and data sets of the Hugging Face hub. Both need the extra `datasets`.

A column is a key of the record; a column without a value in a row is a key that is not there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import IO, Any

from convmodel_cli.data.formats import BadRecord
from convmodel_cli.data.lines import Counts
from convmodel_cli.errors import ModelError, UsageError

HUB = "hf:"
_PATIENCE_SECONDS = 3
_ROWS_AT_ONCE = 1000
_SPLIT = "train"


def read_parquet(stream: IO[bytes], counts: Counts) -> Iterator[tuple[int, Any]]:
    """(number from 1, record) of each row; a part of the file is in memory."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise _without_extra("a Parquet file") from None
    try:
        for batch in pyarrow.parquet.ParquetFile(stream).iter_batches(_ROWS_AT_ONCE):
            for row in batch.to_pylist():
                counts.lines += 1
                yield counts.lines, _record(row)
    except (pyarrow.ArrowException, OSError) as error:
        counts.lines += 1  # the one that cannot be read
        yield counts.lines, BadRecord(f"expected Parquet data, got a damaged file ({_first_line(error)})")


def read_hub(path: str, counts: Counts) -> Iterator[tuple[int, Any]]:
    """(number from 1, record) of each row of `hf:owner/name[:split]`, as they come; raises ModelError."""
    name, _, split = path.removeprefix(HUB).partition(":")
    if not name:
        raise UsageError(
            f"{path}: expected the name of a data set", "write it like hf:owner/name or hf:owner/name:train"
        )
    rows = _open_hub(path, name, split or _SPLIT)
    while True:
        try:
            row = next(rows, None)
        except Exception as error:  # each layer below raises errors of its own
            raise ModelError(f"{path}: row {counts.lines + 1} cannot be read: {_first_line(error)}") from error
        if row is None:
            return
        counts.lines += 1
        yield counts.lines, _record(row)


def _open_hub(path: str, name: str, split: str) -> Iterator[Mapping[str, Any]]:
    try:
        import datasets
    except ImportError:
        raise _without_extra(path) from None
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    _check_reachable(path, datasets.config.HF_ENDPOINT)
    with_torch = datasets.config.TORCH_AVAILABLE
    datasets.config.TORCH_AVAILABLE = False  # else it imports torch, for a counter that its workers would share
    try:
        return iter(datasets.load_dataset(name, split=split, streaming=True))
    except datasets.exceptions.DatasetNotFoundError:
        raise ModelError(f"{path}: there is no such data set on the hub, or it is not public") from None
    except ConnectionError as error:
        raise _unreachable(path, error) from None
    except Exception as error:  # a split or configuration that is not there, data that it cannot read
        raise ModelError(f"{path}: cannot be read: {_first_line(error)}") from error
    finally:
        datasets.config.TORCH_AVAILABLE = with_torch


def _check_reachable(path: str, endpoint: str) -> None:
    """Ask once and briefly: the library asks five times, for half a minute, before it gives up."""
    import urllib.error  # slow to import, and seldom needed
    import urllib.request

    try:
        urllib.request.urlopen(endpoint, timeout=_PATIENCE_SECONDS).close()
    except urllib.error.HTTPError:
        return  # it answers
    except OSError as error:
        raise _unreachable(path, error) from None


def _unreachable(path: str, error: OSError) -> ModelError:
    return ModelError(
        f"{path}: the Hugging Face hub cannot be reached ({_first_line(error)})",
        "check the connection, or download the data set and name its files",
    )


def _without_extra(what: str) -> UsageError:
    return UsageError(f"{what} needs the library datasets, which is not installed", "pip install 'convmodel[datasets]'")


def _record(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if value is not None}


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__
