# The demo: its scenes, its visitors and its page.
