"""What the two sets of tools cost on the same stores, which cyrbk has written."""

import subprocess

from harness import CYRBK, CYRUS, Server, Workspace
from servers import fill

USER = "tools0"


def _compare(plan, table, workspace, label, words, conf=None, changes=False, size=0):
    """A row for one tool on a store of `size` megabytes; cyrbk's highest peak of memory."""
    timeout = plan.timeout(size)
    with table.figure(label) as figure:
        for _ in range(plan.rounds):
            if figure.is_over(plan.cap):
                break
            for maker in (CYRUS, CYRBK):
                cost = workspace.tool(maker, *words, conf=conf, timeout=timeout)
                if cost is not None:
                    figure.add(maker, cost)
                elif maker == CYRUS:
                    figure.stopped((timeout, None, None))
                else:
                    raise SystemExit(f"cyrbk did not end in time: {label}")
                if changes:
                    workspace.put_back(USER)
        return max(peak for _, _, peak in figure.runs[CYRBK])


def one_backup(plan, programs, root, table):
    """Each tool on one backup of each size."""
    peaks = {}
    for size in plan.sizes:
        workspace = Workspace(programs, root, f"tools-{size}")
        fill(plan, workspace, size, (USER,))
        workspace.save(USER)
        guid = _any_guid(plan, workspace)
        combine = workspace.write_conf("combine.conf", "backup_compact_minsize: 1000000000\n")
        for label, words, conf, changes in (
            ("list", ["ctl_backups", "list", "-u", USER], None, False),
            ("stat", ["ctl_backups", "stat", "-u", USER], None, False),
            ("dump of one message", ["cyr_backup", USER, "dump", "message", guid], None, False),
            ("verify", ["ctl_backups", "verify", "-u", USER], None, False),
            ("reindex", ["ctl_backups", "reindex", "-u", USER], None, True),
            ("compact, little stale", ["ctl_backups", "-F", "compact", "-u", USER], None, True),
            ("compact, all rewritten", ["ctl_backups", "-F", "compact", "-u", USER], combine, True),
        ):
            peak = _compare(plan, table, workspace, f"{label}, {size} MB", words, conf, changes,
                            size)
            peaks.setdefault(label, {})[size] = peak
        workspace.remove()
    for label, by_size in peaks.items():
        low, high = min(by_size), max(by_size)
        if low < high:
            ratio = by_size[high] / by_size[low]
            table.single(f"peak memory of {label}: {high} MB / {low} MB", ratio)


def _any_guid(plan, workspace):
    """A message in the middle of the backup."""
    command = [workspace.programs.tool(CYRBK, "cyr_backup"), "-C", workspace.conf, USER, "list",
               "messages"]
    out = subprocess.run([str(word) for word in command], capture_output=True, text=True,
                         check=True).stdout
    lines = [line.split() for line in out.splitlines()]
    guids = [word for words in lines for word in words if len(word) == 40]
    return guids[len(guids) // 2]


def many_backups(plan, programs, root, table):
    """A listing of very many backups."""
    workspace = Workspace(programs, root, "many")
    with Server(workspace, CYRBK) as server:
        server.load("ingest", "--users", plan.backups, "--messages", 1, "--folders", 1,
                    "--connections", 2, "--unverified", mail=["--max-size", 500])
    _compare(plan, table, workspace, f"list of {plan.backups} backups",
             ["ctl_backups", "list", "-A"])
    workspace.remove()
