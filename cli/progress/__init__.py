"""Waiting until what was asked for has happened, and showing how it goes.

wait.py     the shell: watches the cluster, draws, times out, survives a controller's failover
picture.py  what the watch has told so far
goals.py    pure: what is wanted, and whether a picture shows that it is done or failed
lines.py    pure: a picture as lines for a person, and what changed between two
report.py   what to say of a failure: reasons, exit codes, the last log lines
"""
