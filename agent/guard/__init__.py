"""The guard of fenced tasks: ends them when their node's grant runs out, whatever has become of agent and launcher.

A process of its own and standard library only, so that nothing that the agent waits for or stumbles over keeps it from
acting. core/fence.py has the rules in time; `argosy.agent.guard.files` is what agent and guard tell each other.
"""
