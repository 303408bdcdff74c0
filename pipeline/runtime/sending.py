"""Sends the records of an outbox to MLflow: in order, in batches, each of them once."""

import contextlib
import math
import tempfile
from collections.abc import Callable, Iterator
from functools import cached_property
from operator import methodcaller
from pathlib import Path
from typing import Any

from filelock import FileLock

from pipeline.runtime.errors import UserError
from pipeline.runtime.files import file_hash, read_json, remove_temporary, write_json
from pipeline.runtime.limits import NAME, PICTURE_FORMATS
from pipeline.runtime.outbox import LOG, Broken, Record, first_open, read_records, remove_copy
from pipeline.runtime.server import NO_MLFLOW, Gone, Refused, Server, Unsent

RUN_KEY = "maskgit.run"
PARENT = "mlflow.parentRunId"
PICTURES = "mlflow.loggedImages"  # that it has some
SMALL = (256, 256)  # pixels at most of a picture's small copy, which MLflow shows among others
SENT = "sent.json"
NOTHING: Record = {"run_id": None, "bytes": 0, "database": None}  # sent so far
METRICS, PARAMS = 1000, 100  # of a request; MLflow's limits


def sent_part(folder: Path) -> Record:
    """How much of an outbox is sent, and to which database: {run_id, bytes, database}; MLflow's id
    is None until it has one. Where the note is damaged everything is sent again: the server takes
    what it has for the same."""
    try:
        sent = read_json(folder / SENT, *NOTHING)
    except UserError:  # most often there is none yet
        return dict(NOTHING)
    some = type(sent["bytes"]) is int and sent["bytes"] > 0 and isinstance(sent["run_id"], str)
    return sent if some else dict(NOTHING)


def send(folder: Path, server: Server, damaged: dict[int, str]) -> list[str]:
    """Send what the outbox in `folder` still holds.

    Args:
        damaged: gets what is wrong with each record that is left out, by the byte of the log where
            it ends.

    Returns:
        What the server refuses for good, a line each. It stays in the log.

    Raises:
        Gone: the server lacks what was sent; the next call sends it again.
        Unsent: not all could be sent; what was is not sent again.
        Broken: nothing can be sent until somebody puts the outbox right.
        filelock.Timeout: another process is sending it.
    """
    with FileLock(folder / "sending.lock").acquire(timeout=0):
        note = folder / SENT
        if note.exists() and not note.is_file():  # it would never end to send everything again
            raise Broken(f"{note} is no file, but a folder, pipe or device; delete it")
        remove_temporary(folder, SENT)  # of a stage that ended, or was killed, while it wrote one
        try:
            return _Sending(folder, server, damaged).run()
        except Gone:  # the run was deleted, or the whole database
            server.forget()
            write_json(note, NOTHING)
            raise


class _Sending:
    """One outbox on its way; `sent` is how much of it the server's database has."""

    def __init__(self, folder: Path, server: Server, damaged: dict[int, str]):
        self.folder, self.server, self.damaged = folder, server, damaged
        opened = first_open(folder / LOG)
        if opened is None:
            raise Unsent(f"{folder / LOG} is empty now")
        first = opened["open"]
        self.experiment = server.experiment(first["experiment"])
        self.query = f"tags.`{RUN_KEY}` = '{first['key']}'"
        self.sent = self._sent_part(folder)
        self.refused: list[str] = []

    def _sent_part(self, folder: Path) -> Record:
        """Nothing, where it was sent to a database that was deleted since, or begun anew."""
        sent, database = sent_part(folder), self.experiment.creation_time
        known = sent["database"] == database and sent["bytes"] <= size_of(folder / LOG)
        return sent if known else NOTHING | {"database": database}

    def run(self) -> list[str]:
        for end, records in self._batches():
            if records:  # not damaged ones alone
                self._send(records)
            for record in records:
                if "artifact" in record:  # before it is noted: nobody looks at it again then
                    remove_copy(self.folder / record["artifact"])
            self.sent["bytes"] = end
            write_json(self.folder / SENT, self.sent)
            self.server.records += len(records)
        return self.refused

    def _send(self, records: list[Record]) -> None:
        """Send a batch, as `_batches` puts them together."""
        if "open" in records[0]:
            self._open(records[0])
        elif "metrics" in records[0] or "params" in records[0]:
            self._values(records)
        else:
            self._attempt(self._other, records[0])

    def _batches(self) -> Iterator[tuple[int, list[Record]]]:
        """The records that are not sent yet, each with the byte where it ends; metrics and params
        that follow one another together, as many as fit a request or two. Damaged ones are passed
        over."""
        batch: list[Record] = []
        values = end = 0
        for stop, record in read_records(self.folder / LOG, self.sent["bytes"]):
            if "damaged" in record:
                self.damaged[stop], end = record["damaged"], stop
                continue
            more = len(record.get("metrics", ())) + len(record.get("params", ()))
            if batch and (not more or not values or values + more > METRICS):
                yield end, batch
                batch, values = [], 0
            batch.append(record)
            values, end = values + more, stop
        if end:
            yield end, batch

    def _open(self, record: Record) -> None:
        """Find the run by its key, or create it: a request that failed may have done so before."""
        run, tags = record["open"], dict(record["open"]["tags"])
        if parent := self._parent(run):
            tags[PARENT] = parent
        ask, experiment = self.server.ask, self.experiment.experiment_id
        try:
            found = ask(lambda client: client.search_runs([experiment], self.query, max_results=1))
            if found:
                run_id = found[0].info.run_id
                ask(lambda client: client.update_run(run_id, status="RUNNING"))
                ask(lambda client: client.log_batch(run_id, tags=_tags(tags)))
            elif self.sent["bytes"]:
                raise Gone("it was deleted")  # and what was sent with it
            else:
                tags[RUN_KEY] = run["key"]
                new = {"start_time": record["time"], "tags": tags, "run_name": run["name"]}
                run_id = ask(lambda client: client.create_run(experiment, **new)).info.run_id
        except Refused as error:  # as where the experiment was deleted: nothing to leave out
            raise Unsent(str(error)) from None
        if not (isinstance(run_id, str) and 0 < len(run_id) <= NAME):  # it is not MLflow's answer
            raise Unsent(f"{NO_MLFLOW} run")
        self.sent["run_id"] = run_id

    def _parent(self, run: Record) -> str | None:
        """MLflow's id of the run above; None if there is none, also where its outbox was deleted,
        or can never be sent."""
        if run["parent"] is None:
            return None
        above = self.folder.with_name(run["parent"])
        parent: str | None = self._sent_part(above)["run_id"]
        with contextlib.suppress(Broken, OSError):
            opened = first_open(above / LOG)
            if parent is None and opened and opened["open"]["uri"] == run["uri"]:
                raise Unsent("its parent run is not there yet")
        return parent

    def _values(self, records: list[Record]) -> None:
        from mlflow.entities import Metric, Param

        metrics, params = [], []
        for record in records:
            for name, value in record.get("metrics", {}).items():
                metrics.append(Metric(name, value, record["time"], record["step"]))
            params += [Param(k, v[:6000]) for k, v in record.get("params", {}).items()]
        for values, most in ((params, PARAMS), (metrics, METRICS)):
            for start in range(0, len(values), most):
                self._attempt(self._log, values[start : start + most])

    def _log(self, values: list[Any]) -> None:
        """Log metrics, or params; halved where the server refuses some, to find out which."""
        from mlflow.entities import Param

        kind = "params" if isinstance(values[0], Param) else "metrics"
        run_id = self.sent["run_id"]
        try:
            self.server.ask(lambda client: client.log_batch(run_id, **{kind: values}))
        except Refused:
            if len(values) == 1:
                if kind == "params" and self._has_param(values[0].key):
                    return  # the run was taken up with a param changed that it does not depend on
                raise
            for half in (values[: len(values) // 2], values[len(values) // 2 :]):
                self._attempt(self._log, half)

    def _has_param(self, name: str) -> bool:
        run = self.server.ask(lambda client: client.get_run(self.sent["run_id"]))
        return name in run.data.params

    def _attempt(self, action: Callable[[Any], None], what: Any) -> None:
        """Do it, unless the server refuses it for good, which is noted."""
        try:
            action(what)
        except Refused as error:
            self.refused.append(str(error))

    def _other(self, record: Record) -> None:
        run_id, ask = self.sent["run_id"], self.server.ask
        if "artifact" in record:
            path = self.folder / record["artifact"]
            if not path.exists():
                return  # it was sent, and that was not noted, or the server forgot the run since
            if file_hash(path) != record["hash"]:
                raise Refused(f"{path} is damaged: its bytes are not those that were logged")
            if "image" in record:
                self._image(path, record)
            else:
                self._upload([path])
        elif "tags" in record:
            ask(lambda client: client.log_batch(run_id, tags=_tags(record["tags"])))
        elif "dataset" in record:
            inputs = [_dataset(**record["dataset"])]
            ask(lambda client: client.log_inputs(run_id, inputs))
        else:
            self._remove_doubles()
            ask(lambda client: client.set_terminated(run_id, record["end"], record["time"]))

    def _remove_doubles(self) -> None:
        """Delete the empty runs that requests created which had been given up: a server that was
        stopped carries them out when it goes on, after others."""
        at = [self.experiment.experiment_id]
        for run in self.server.ask(lambda client: client.search_runs(at, self.query)):
            double, empty = run.info.run_id, not (run.data.metrics or run.data.params)
            if empty and double != self.sent["run_id"]:
                self.server.ask(methodcaller("delete_run", double))

    def _image(self, path: Path, record: Record) -> None:
        """Log a picture of a step as MLflow's own `log_image` does, in three requests, but for the
        random part of its names: what is sent again takes the place of what was sent."""
        from PIL import Image

        try:
            picture = Image.open(path, formats=PICTURE_FORMATS)
            picture.load()
        except Exception as error:  # it was damaged when it was logged; decoders raise anything
            raise Refused(f"{path} is damaged: it is no picture") from error
        name = f"{record['image']}+step+{record['step']}+timestamp+{record['time']}+"
        name += record["hash"][:32]
        with tempfile.TemporaryDirectory() as folder:
            whole, small = Path(folder, f"{name}.png"), Path(folder, f"{name}+compressed.webp")
            picture.save(whole)
            picture.thumbnail(SMALL)
            picture.save(small)
            self._upload([whole, small], "images")
        self.server.ask(methodcaller("set_tag", self.sent["run_id"], PICTURES, True))

    def _upload(self, files: list[Path], folder: str | None = None) -> None:
        """Log files, and look whether the server has them in their size: MLflow takes whatever
        answers an upload with 200 for its server, a login's page too."""
        run_id, ask = self.sent["run_id"], self.server.ask
        for file in files:
            ask(methodcaller("log_artifact", run_id, str(file), folder))
        if self._takes_files:
            listed = ask(methodcaller("list_artifacts", run_id, folder))
            there = {Path(file.path).name: file.file_size for file in listed}
            for file in files:
                if there.get(file.name) != file.stat().st_size:
                    raise Unsent(f"it does not have {file.name} as it was sent")

    @cached_property
    def _takes_files(self) -> bool:
        """Whether it does so itself: else they go to a folder or a store."""
        run = self.server.ask(methodcaller("get_run", self.sent["run_id"]))
        return run.info.artifact_uri.startswith("mlflow-artifacts:")


def size_of(file: Path) -> float:
    """Of a file in bytes; without end where it is gone."""
    try:
        return file.stat().st_size
    except OSError:
        return math.inf


def _tags(tags: dict[str, str]) -> list[Any]:
    from mlflow.entities import RunTag

    return [RunTag(name, value) for name, value in tags.items()]


def _dataset(name: str, digest: str, source: str) -> Any:
    from mlflow.entities import Dataset, DatasetInput

    return DatasetInput(Dataset(name, digest[:32], "local", source), [])
