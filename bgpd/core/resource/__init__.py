"""Calico's resources (``projectcalico.org/v3``) as documents: what is right, what is wrong, what a change would do.

A resource stays the JSON object that it was written as, so whatever we do not know of it is kept by doing nothing.
``schema`` says how a shape is checked, ``rules`` what single values must be; ``pools``, ``bgp`` and ``nodes`` describe
the kinds; ``kinds`` finds them; ``check`` judges documents, alone and against the others; ``merge`` makes of a document
and what is stored what will be stored; ``plan`` tells what that changes.
"""
