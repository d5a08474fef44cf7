# The fix-and-distil rounds: novel views are rendered, fixed and trained on, and kept if they
# help.
