"""How an agent is reached: an argument list that starts it, and two pipes.

`launch` says how (here, over ssh, in an emulator), `link` is a running supervisor, `channel` one of
its workers, `device` a link that is made anew when it was lost, and its lock.
"""
