"""Guards of playbooks: one step after the other, taken back in reverse, `finally` always, people who may answer."""

from __future__ import annotations

from dr.core import asks_playbooks, warden
from dr.core.playbooks import commands, deeds, runner
from tests.sim.mutants.mutant import m

FAILED = ("elif bad := [job for job in jobs if job.state is not OperationState.DONE]:", "elif bad := []:")

GROUPS = {
    "commands": (
        m(
            "what is not heard of is asked for again",
            "playbooks/a-command-survives-the-coordinator",
            (commands._looked_at, "if same_boot and draft.now >= run.asked_at + AGAIN_S:", "if False:"),
        ),
        m(
            "what is not known is not tried again",
            "playbooks/a-command-of-which-nothing-is-known",
            (runner._run_commands, 'again=bad.state == "failed"', "again=True"),
        ),
        m(
            "another boot of its host is not waited for",
            "playbooks/a-command-of-which-nothing-is-known",
            (commands._seen, "if host.boot_id == run.boot_id:", "if True:"),
        ),
        m(
            "a host that runs guests is not rebooted",
            "playbooks/reboots-an-empty-host",
            (commands._blockers_of, "if does and host.phase is not", "if False and host.phase is not"),
        ),
        m(
            "a reboot is over when the host is back",
            "playbooks/reboots-an-empty-host",
            (commands._with_output, "if (run.reboots or run.powers_off) and", "if False and"),
        ),
        m(
            "what an agent has begun in a guest it never begins again",
            "playbooks/a-command-in-a-guest-that-ends",
            (warden.begin_inside, "if command in memory.begun:", "if False:"),
        ),
        m(
            "who starts last is stopped first",
            "playbooks/stops-who-starts-last-first",
            (deeds._stopped_next, "if name not in needed", "if name"),
        ),
    ),
    "playbooks": (
        m(
            "a step waits for the end of what it asked for",
            "playbooks/rolled-back-in-reverse",
            (runner._look, "if any(job.state is OperationState.OPEN for job in jobs):", "if False:"),
            (
                runner._look,
                "elif bad := [job for job in jobs if job.state is not OperationState.DONE]:",
                "elif bad := []:",
            ),
        ),
        m(
            "what a step asked for and that failed is its failure",
            "playbooks/undrained-by-hand",
            (
                runner._look,
                "elif bad := [job for job in jobs if job.state is not OperationState.DONE]:",
                "elif bad := []:",
            ),
        ),
        m(
            "a step takes no longer than it may",
            "playbooks/rolled-back-in-reverse",
            (runner._look, "if draft.now - step.began < limit_s:", "if True:"),
        ),
        m(
            "a rollback takes back",
            "playbooks/rolled-back-in-reverse",
            (runner._to_part, "in reversed(begun)", "in begun[:0]"),
        ),
        m(
            "the last is taken back first",
            "playbooks/rolled-back-in-reverse",
            (runner._to_part, "in reversed(begun)", "in begun"),
        ),
        m(
            "what a person did is not taken back",
            "playbooks/what-a-person-did-stays",
            (runner._undoing, "if each not in step.before", "if each"),
        ),
        m(
            "what was so already is not taken back",
            "playbooks/what-a-person-did-stays",
            (runner._to_part, 'step.part == "steps" and step.acted', 'step.part == "steps"'),
        ),
        m(
            "what is to be done in the end is done after a failure",
            "playbooks/undrained-by-hand",
            (
                runner._to_part,
                "if step.part == run.part and step.state not in OVER",
                "if step.state not in OVER",
            ),
        ),
        m(
            "no step begins after one that failed",
            "playbooks/undrained-by-hand",
            (runner._fail, 'if run.part != "steps" or (', "if True or ("),
        ),
        m(
            "a failure that does not matter ends nothing",
            "playbooks/goes-on-after-a-failure",
            (runner._fail, 'step.spec.on_fail == "continue" and not run.cancelled', "False"),
        ),
        m(
            "what is refused for a while is asked for again",
            "playbooks/refused-for-a-while",
            (runner._begin, "draft.now - max(step.began, draft.started_at) < REFUSED_S", "False"),
        ),
        m(
            "no step begins after a cancellation",
            "playbooks/cancelled",
            (runner._step, 'if run.cancelled and run.part == "steps":', "if False:"),
        ),
        m(
            "only those who are named may answer",
            "playbooks/approved-by-those-who-may",
            (asks_playbooks.agree, "if verb.by and ask.by not in verb.by:", "if False:"),
        ),
        m(
            "silence is no consent",
            "playbooks/nobody-answers",
            (runner._look, 'if step.spec.verb.otherwise == "go on":', "if True:"),
        ),
        m(
            "people see that they are asked",
            "playbooks/approved-by-those-who-may",
            (runner._ask_people, "    draft.alert(\n", "    (lambda *_: None)(\n"),
        ),
        m(
            "what it requires must be so",
            "playbooks/refused-before-its-first-step",
            (asks_playbooks.run, "    if why or keeps:", "    if keeps:"),
        ),
        m(
            "nothing goes on by itself on a store that was restored",
            "playbooks/not-resumed-on-an-older-copy",
            (runner.carry_on, "if draft.cluster.restored:", "if False:"),
        ),
    ),
}
