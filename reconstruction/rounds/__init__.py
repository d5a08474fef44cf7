# The fix-and-distil rounds: novel views are generated and trained on, and kept if they help.
