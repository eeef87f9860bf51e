"""What is wrong with the files that a user names, said before torch is imported: importing it takes seconds.

Only what is cheap is looked at: whether a file is there, what kind it is, and the head of a file of records. Where
another layer checks the same thing, it calls the function here, so that a mistake has one message.
"""
