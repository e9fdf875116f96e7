"""Attacks on a model that is said to have forgotten. Free of Ray.

Each module is one kind of attack: a study, a function from (model, tokenizer, batch size) to readings by the name
"CONDITION|MEASURE", which gives the model back as it was. The same attack on the baseline, and on a model that never
read the forget set, is its control.
"""
