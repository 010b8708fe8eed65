"""`sockpid top`: who retransmits now, on a screen that keeps itself up to date.

model.py counts, state.py is what the user has chosen, view.py makes lines of both; all three are pure. source.py brings
events, screen.py has the terminal, command.py lets them meet.
"""
