"""A run in its folder: what is written while it goes, so that it can break off at any moment.

The order of writing is what makes it safe: a new best replaces the model's weights before a checkpoint calls them best,
the record calls the run finished when all else is there, and checkpoints go only after that.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from convmodel_cli.data.formats import Conversation
from convmodel_cli.errors import ConvmodelError, ModelError, Stopped, StorageError, TrainingError
from convmodel_cli.events import Checkpointed, Evaluated, Finished, Note, Resumed, Sampled, Saved, Started, StateReady
from convmodel_cli.settings import RunSettings
from convmodel_cli.signals import StopRequest
from convmodel_cli.storage import free_bytes, need_space, storing
from convmodel_cli.workflows.checkpoints import find_checkpoints, remove_checkpoints, save_checkpoint
from convmodel_cli.workflows.failures import explained, with_lines
from convmodel_cli.workflows.history import History
from convmodel_cli.workflows.improve import RunEvent, adopt_weights, conclude, figures, improve
from convmodel_cli.workflows.journal import Journal
from convmodel_cli.workflows.plan import RunPlan, plan_rest
from convmodel_cli.workflows.record import best_figures, surroundings, write_record
from convmodel_cli.workflows.report import write_report
from convmodel_cli.workflows.resume import Resumption, identity, run_key
from convmodel_cli.workflows.run_folder import (
    EVENTS,
    clear_output,
    clear_temporaries,
    write_model_card,
    write_model_files,
    write_test_file,
)
from convmodel_cli.workflows.state import RunState, dump_state, load_state

if TYPE_CHECKING:
    from convmodel_cli.model.compute import Compute
    from convmodel_cli.model.language_model import LanguageModel
    from convmodel_cli.model.optimizers import Optimizers

Progress = RunEvent | Saved | Checkpointed | Finished


@dataclass
class Run:
    """Everything of a run. `record` is what convmodel.json says; `where` tells the place of a training conversation."""

    model: LanguageModel
    optimizers: Optimizers
    plan: RunPlan
    compute: Compute
    state: RunState
    record: dict[str, Any]
    folder: Path
    settings: RunSettings
    where: Callable[[int], str]
    stop: StopRequest
    _journal_bytes: int = 0
    _saved_step: int = 0  # there is never a checkpoint of step 0, which is nothing but the start
    _history: History = field(default_factory=History)

    def start(self, test: Sequence[Conversation]) -> None:
        """Write all but the weights, in place of an earlier run if there is one."""
        # The weights twice, because a new best is written beside the one it replaces, and a checkpoint.
        need_space(self.folder, 2 * self._weight_bytes() + self._checkpoint_bytes(), "the run")
        write_record(self.folder, self.record)  # from here on the folder is this run's, whatever of it is there yet
        clear_output(self.folder)
        if test:
            write_test_file(self.folder, test)
        write_model_files(self.model, self.folder)

    def take_up(self, resumption: Resumption) -> None:
        """Put everything back as it was at the checkpoint; raises ModelError if it does not hold that."""
        from convmodel_cli.model.training_state import load_training_state
        from convmodel_cli.model.weights import weights_origin

        checkpoint = resumption.checkpoint
        need_space(self.folder, self._weight_bytes() + self._checkpoint_bytes(), "the run")
        try:
            self.state = load_state(checkpoint.state["progress"], self.state.since)
        except (KeyError, TypeError) as error:
            raise ModelError(f"{checkpoint.path}: expected {error} in state.json, got none") from None
        step, loss, run = weights_origin(self.folder)
        if not resumption.keeps_best(self.state, step, run == run_key(self.record)):
            self.state.best_loss = math.inf
        elif resumption.measures_otherwise:  # the model has those that are there
            adopt_weights(self.model, self.plan, self.compute, self.state, step, math.inf)
        load_training_state(self.model, self.optimizers, checkpoint.path, not resumption.has_other_optimizer)
        self._saved_step = self.state.step
        if resumption.has_other_budget:
            self.state.micro_batch_tokens = 0
        if resumption.orders_otherwise:
            self.state.next_place = 0
        self.plan = plan_rest(self.plan, self.state)
        is_known = step == self.state.best_step
        self.record["best"] = best_figures(self.state) if is_known else {"step": step, "loss": loss, "valid": None}
        self.record["changes"] = list(checkpoint.state["changes"])
        if changes := [*resumption.changes, *resumption.surroundings]:
            self.record["changes"].append({"step": self.state.step, "changes": changes})
        self._journal_bytes = int(checkpoint.state["journal_bytes"])
        clear_temporaries(self.folder)
        write_record(self.folder, self.record)

    def go(self, opening: Started | Resumed) -> Iterator[Started | Resumed | Progress]:
        """Train to the end, with every event in the journal.

        Raises Stopped, TrainingError or StorageError with what is kept.
        """
        with storing(self.folder):
            self._journal = Journal(self.folder / EVENTS, self._journal_bytes)
        try:
            yield from self._journal.record(chain([opening], self._train()))
            yield self._finish()
            write_report(self.folder, self._history)
        except Stopped as stopped:
            error = self._with_what_is_kept(self._save_before_leaving(stopped))
            if isinstance(error, Stopped):
                yield replace(figures(self.model, self.compute, self.state, str(self.folder)), stopped="interrupted")
            raise error from None
        except TrainingError as error:
            raise self._with_what_is_kept(with_lines(error, self.where)) from error
        except StorageError as error:
            raise self._with_what_is_kept(error) from error
        except (RuntimeError, MemoryError) as error:
            raise self._with_what_is_kept(explained(error)) from error
        finally:
            self.stop.release()
            self._journal.close()

    def _train(self) -> Iterator[Progress]:
        for event in improve(self.model, self.optimizers, self.plan, self.compute, self.state, self.stop):
            if isinstance(event, Evaluated) and event.best:
                self._save_best()
                yield event
                yield Saved(event.step, str(self.folder))
            elif isinstance(event, StateReady):
                if self._wants_checkpoint(event):
                    yield self._save_checkpoint()
            else:
                yield event
                if isinstance(event, Sampled):
                    write_report(self.folder, self._history)

    def _wants_checkpoint(self, ready: StateReady) -> bool:
        if ready.step == self._saved_step:
            return False
        every = self.settings.save_every
        return ready.last or (ready.evaluated if every is None else ready.step % every == 0)

    def _save_best(self) -> None:
        from convmodel_cli.model.training_state import check_finite_weights
        from convmodel_cli.model.weights import save_weights

        check_finite_weights(self.model, self.state.step)
        need_space(self.folder, self._weight_bytes(), "a model")
        with storing(self.folder):
            of_run = {"step": str(self.state.best_step), "loss": repr(self.state.best_loss)}
            save_weights(self.model, self.folder, {**of_run, "run": run_key(self.record)})
        self.record["best"] = best_figures(self.state)
        write_record(self.folder, self.record)

    def notes_on_space(self) -> Iterator[Note]:
        """Warn of a disk that has room to begin, but not for all that will be kept."""
        wanted = 2 * self._weight_bytes() + (self.settings.keep + 1) * self._checkpoint_bytes()
        if (free := free_bytes(self.folder)) < wanted:
            text = f"the run may need {wanted:,} bytes more, and {free:,} are free on its disk"
            yield Note(f"{self.folder}: {text}", warning=True)

    def _weight_bytes(self) -> int:
        return 4 * self.model.num_parameters

    def _checkpoint_bytes(self) -> int:
        from convmodel_cli.model.training_state import training_state_bytes

        return training_state_bytes(self.model, self.optimizers)

    def _save_checkpoint(self) -> Checkpointed:
        from convmodel_cli.model.training_state import check_finite_weights, save_training_state

        started = time.perf_counter()
        check_finite_weights(self.model, self.state.step)
        content = {
            "run": identity(self.record),
            "surroundings": surroundings(self.record),
            "changes": self.record.get("changes", []),
            "max_context": self.plan.max_context,
            "progress": dump_state(self.state),
            "journal_bytes": self._journal.sync(),
        }
        path = save_checkpoint(
            self.folder,
            self.state.step,
            content,
            lambda folder: save_training_state(self.model, self.optimizers, folder),
            self._checkpoint_bytes(),
            self.settings.keep,
        )
        self._saved_step = self.state.step
        return Checkpointed(self.state.step, str(path), time.perf_counter() - started)

    def _save_before_leaving(self, stopped: Stopped) -> ConvmodelError:
        """The error to end with: that the run was stopped, or that it could not be saved."""
        if self.state.step != self._saved_step:
            try:
                self._save_checkpoint()
            except StorageError as error:
                return error
        return Stopped(f"{stopped} after step {self.state.step}", stopped.exit_code)

    def _finish(self) -> Finished:
        from convmodel_cli.model.checkpoint import load_weights
        from convmodel_cli.model.weights import weights_origin

        step, loss, _ = weights_origin(self.folder)
        if step != self.state.step:  # else the model has them
            load_weights(self.model, self.folder)
        if step != self.state.best_step or math.isinf(self.state.best_loss):
            adopt_weights(self.model, self.plan, self.compute, self.state, step, loss)
        finished = conclude(self.model, self.plan, self.compute, self.state, str(self.folder), self.stop)
        self.stop.check()
        self.record["best"] = best_figures(self.state)
        write_model_card(self.folder, self.record)
        self.record["finished"] = asdict(finished)
        self._journal.write(finished)
        self._journal.sync()
        write_record(self.folder, self.record)
        if not self.settings.keep_checkpoints:
            with storing(self.folder):
                remove_checkpoints(self.folder)
        return finished

    def _with_what_is_kept(self, error: ConvmodelError) -> ConvmodelError:
        best = "no model yet"
        if self.state.losses:
            step = self.record["best"]["step"]
            best = f"the best model so far, of step {step}" if step else "the untrained model"
        kept = f"{self.folder} holds {best}"
        error.hint = f"{error.hint}; {kept}" if error.hint else kept
        # A step whose numbers break does so again: only another setting helps.
        error.resumable = bool(find_checkpoints(self.folder)) and not isinstance(error, TrainingError)
        with suppress(StorageError):  # the error at hand tells more
            write_report(self.folder, self._history, str(error))
        return error
