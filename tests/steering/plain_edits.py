"""The independent route of these tests: the same edits on a plain Hugging Face model, with torch hooks only."""

import torch


class PlainEdit:
    """`edit` applied before each of `layers`, and `write` to what every attention and MLP block writes, while open."""

    def __init__(self, plain, layers, edit, write=None):
        self.handles = [
            plain.model.layers[layer].register_forward_pre_hook(self._before(edit), with_kwargs=True)
            for layer in layers
        ]
        for block in plain.model.layers if write else ():
            self.handles.append(block.self_attn.register_forward_hook(lambda m, a, out: (write(out[0]), *out[1:])))
            self.handles.append(block.mlp.register_forward_hook(lambda m, a, out: write(out)))

    @staticmethod
    def _before(edit):
        def hook(module, args, kwargs):
            if args:
                return (edit(args[0]), *args[1:]), kwargs
            return args, {**kwargs, "hidden_states": edit(kwargs["hidden_states"])}

        return hook

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for handle in self.handles:
            handle.remove()


def plain_greedy(plain, ids, n_new):
    """Greedy tokens of one prompt. The whole sequence is computed for every token: no cache, no padding."""
    sequence = ids
    for _ in range(n_new):
        with torch.no_grad():
            token = plain(sequence).logits[:, -1].argmax(-1, keepdim=True)
        sequence = torch.cat([sequence, token], dim=1)
        if token.item() == plain.generation_config.eos_token_id:
            break
    return sequence[0, ids.shape[1] :].tolist()


def logits_of(chat, prompts):
    """The logits of the last token of each prompt, under whatever is open."""
    batch = chat.pad(chat.encode(prompts))
    with torch.inference_mode():
        return chat.bridge(batch.input_ids, attention_mask=batch.attention_mask)[:, -1]
