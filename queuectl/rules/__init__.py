"""May this claim start? A claimant asks once it has read what it claimed; `start` asks each rule in turn.

A rule answers with the claim if it may start. Else it has undone the claim, and answers with the name under
which the file waits now.
"""
