"""May this claim start? A claimant asks `put_off(claim)` once it has read what it claimed.

None means that the claim may start. Else the rule has undone the claim, and answers with the name under
which the file waits now.
"""
