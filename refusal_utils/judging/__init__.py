"""Did the model refuse, how, is its response text at all, and do people agree with the judge?"""
