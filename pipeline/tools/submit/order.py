"""What a job is told. It travels with the code: the cluster's list of jobs would show it.

It holds what may be a password. A package of Ray's is unpacked on every node that works for the job
and lies there for as long as Ray likes; the order in it is therefore encrypted. The key is part of
the job's command, which is shown with the job, and useless without the package.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.runtime.errors import UserError
from pipeline.runtime.node_checkout import Remote

FILE = "maskgit-order"
KEY = "MASKGIT_ORDER_KEY"


@dataclass(frozen=True)
class Order:
    """What a job is to do.

    Args:
        stage: of dvc.yaml; None for all.
        environment: that its stages have besides the cluster's.
        remote: the DVC remote; None if the job works in the project's own folder.
    """

    stage: str | None
    environment: Mapping[str, str]
    remote: Remote | None

    def sealed(self) -> tuple[str, bytes]:
        """A new key, and the order encrypted with it."""
        from cryptography.fernet import Fernet

        key = Fernet.generate_key()
        return key.decode(), Fernet(key).encrypt(json.dumps(asdict(self)).encode())

    @classmethod
    def opened(cls, folder: Path) -> "Order":
        """The order in a job's package; the key is gone from the environment then.

        Raises:
            UserError: there is none.
        """
        from cryptography.fernet import Fernet

        key, file = os.environ.pop(KEY, ""), folder / FILE
        if not key or not file.exists():
            raise UserError("this is what `maskgit submit` runs on a cluster, and nothing by hand")
        values = json.loads(Fernet(key).decrypt(file.read_bytes()))
        remote = values.pop("remote")
        return cls(**values, remote=Remote(**remote) if remote else None)
