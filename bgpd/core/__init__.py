"""What we decide. Pure: no I/O, clock, chance, threads or logging (law 1).

``pipeline.Pipeline`` takes events and settles facts into tables of desired state; ``facts`` holds what is the case; ``rib`` decides BGP,
``overlay`` how a destination is reached, ``ipam`` who owns which addresses, ``reconcile`` what separates desired from actual.
"""
