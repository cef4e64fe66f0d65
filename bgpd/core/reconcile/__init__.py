"""What separates desired from actual, in which order to mend it, and when to try again. The loop that does it is adapters/reconciler.py."""
