"""Start a training in one process, or in several that torch.distributed runs together."""

import logging
import os
import re
import signal
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch.distributed import DistError
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, record
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from stages.lib.core.errors import UserError
from stages.lib.settings.train import Launch

RENDEZVOUS_TIMEOUT = 900  # seconds that a machine waits for the others
LOST = re.compile(r"by peer|broken pipe|timed out|remote process", re.IGNORECASE)  # as gloo and NCCL say it

# What ends a process by a signal; SIGABRT is how NCCL's watchdog ends one whose partner does not answer.
REASONS = {
    "SIGKILL": "Where the system killed it for its memory, take a smaller batch. ",
    "SIGABRT": "NCCL does so to a process that lost another one: what that one's machine printed says why. ",
}

Result = TypeVar("Result")


def joining() -> bool:
    """Whether this machine lends its processes to a training that another one leads (NODE_RANK above 0)."""
    return _node_rank() > 0


def _node_rank() -> int:
    return int(os.environ.get("NODE_RANK", 0))


def start(launch: Launch, function: Callable[..., Result], *arguments: object) -> Result:
    """What `function(*arguments)` returns: called here, or in each of several processes, of which the first counts.

    The processes find each other at `launch.rendezvous`; where one ends badly the others are stopped. Raises
    UserError with the text of the one that the function raised, or that names the process which was killed, or where
    not every machine comes within RENDEZVOUS_TIMEOUT seconds.
    """
    if launch.strategy == "single":
        return function(*arguments)
    processes = launch.processes or torch.cuda.device_count()
    if not processes:
        raise UserError("train.launch.processes is 0, one for each GPU, but no GPU was found; set it to a number")
    # It prints a process's traceback, also of the error that becomes one sentence below.
    logging.getLogger("torch.distributed.elastic.multiprocessing.api").setLevel(logging.CRITICAL)
    alone = launch.nodes == 1
    config = LaunchConfig(
        min_nodes=launch.nodes,
        max_nodes=launch.nodes,
        nproc_per_node=processes,
        rdzv_backend="c10d" if alone else "static",  # static: the first machine has the first process
        rdzv_endpoint="localhost:0" if alone else launch.rendezvous,
        rdzv_configs={"rank": _node_rank(), "timeout": RENDEZVOUS_TIMEOUT},
        run_id="train",
        max_restarts=0,
        monitor_interval=0.5,
        start_method="spawn",
    )
    if not alone:
        logging.info("waiting at most %d s for %d machines at %s", RENDEZVOUS_TIMEOUT, launch.nodes, launch.rendezvous)
    try:
        return elastic_launch(config, _work)(processes, function, arguments).get(0)
    except ChildFailedError as error:
        sentence = _sentence_of(error, processes * launch.nodes)
        if not sentence:
            raise
        raise UserError(sentence) from error
    except DistError as error:
        raise UserError(
            f"not all {launch.nodes} machines met at train.launch.rendezvous={launch.rendezvous} within "
            f"{RENDEZVOUS_TIMEOUT} s ({str(error).partition('. ')[0][:200]}); start the same training on each, with "
            "NODE_RANK=1 on the second and so on; the rendezvous is the first one's name and a free port of it"
        ) from error
    except SignalException as error:
        raise UserError("stopped as asked; the same command goes on from the last checkpoint") from error


def _sentence_of(error: ChildFailedError, processes: int) -> str:
    """What the first process that failed has to say to a user; nothing where it is a defect of ours."""
    rank, failure = error.get_first_failure()
    if failure.exitcode < 0:
        killer = signal.Signals(-failure.exitcode).name
        why = REASONS.get(killer, "")
        return (
            f"process {rank} of {processes} was killed by {killer}; the others were stopped. {why}"
            "The same command goes on from the last checkpoint"
        )
    message: Any = failure.message  # a dict where the process raised, whatever its annotation says
    name, _, text = message["message"].partition(": ")
    if name == UserError.__name__:
        return text
    if not LOST.search(text):
        return ""
    return (
        f"process {rank} of {processes} lost another one ({text.partition('. ')[0][:200]}); what "
        "that one's machine printed says why, and the same command on each machine goes on from the last checkpoint"
    )


@record
def _work(processes: int, function: Callable[..., Result], arguments: tuple) -> Result:
    """One process: its share of the CPU's cores, and the log lines of the first one only."""
    first = os.environ["RANK"] == "0"
    logging.getLogger("accelerate").setLevel(logging.WARNING)  # it reports each file of a checkpoint
    logging.basicConfig(level=logging.INFO if first else logging.ERROR, format="%(message)s", stream=sys.stdout)
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))  # before a base is quantised, on the GPU that is current
    else:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // processes))
    return function(*arguments)
