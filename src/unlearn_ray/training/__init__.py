"""Fine-tuning, of the reinforced and of the unlearned model alike: towards targets at token positions. Free of Ray.

`examples` says what is trained on, `loop` how, `layout` how it is spread over processes, `saves` how a killed training
goes on, `zero` what only DeepSpeed needs.
"""
