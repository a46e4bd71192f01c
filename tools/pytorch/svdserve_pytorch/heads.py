"""Attention whose heads have other widths than hidden / heads (version 2 of FORMAT.md).

transformers cuts queries, keys and values into heads of one width, that of the
configuration. Here each is cut into the configured *number* of heads, whatever
their width; the scores are still divided by sqrt(hidden / heads).
"""

from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.bert.modeling_bert import BertSelfAttention, eager_attention_forward
from transformers.models.distilbert.modeling_distilbert import DistilBertSelfAttention
from transformers.models.roberta.modeling_roberta import RobertaSelfAttention
from transformers.models.xlm_roberta.modeling_xlm_roberta import XLMRobertaSelfAttention

from .checkpoint import FormatError


class OwnWidths:
    """Mixed into an attention class: `forward` for any width of Q, K and of V."""

    PROJECTIONS = ("query", "key", "value")

    def heads_count(self):
        return self.num_attention_heads

    def attend(self, hidden_states, attention_mask, **kwargs):
        """hidden_states [batch, tokens, hidden] -> [batch, tokens, heads * d_v], weights."""
        shape = hidden_states.shape[:-1]
        query, key, value = (
            getattr(self, name)(hidden_states).view(*shape, self.heads_count(), -1).transpose(1, 2)
            for name in self.PROJECTIONS)  # [batch, heads, tokens, width]
        function = ALL_ATTENTION_FUNCTIONS.get(self.config._attn_implementation, eager_attention_forward)
        output, weights = function(
            self, query, key, value, attention_mask, scaling=self.scaling,
            dropout=self.dropout.p if self.training else 0.0, **kwargs)
        return output.reshape(*shape, -1), weights

    def forward(self, hidden_states, attention_mask=None, **kwargs):
        return self.attend(hidden_states, attention_mask, **kwargs)


class BertOwnWidths(OwnWidths, BertSelfAttention):
    pass


class RobertaOwnWidths(OwnWidths, RobertaSelfAttention):
    pass


class XLMRobertaOwnWidths(OwnWidths, XLMRobertaSelfAttention):
    pass


class DistilBertOwnWidths(OwnWidths, DistilBertSelfAttention):
    PROJECTIONS = ("q_lin", "k_lin", "v_lin")

    def heads_count(self):
        return self.n_heads

    def forward(self, hidden_states, attention_mask=None, **kwargs):
        output, weights = self.attend(hidden_states, attention_mask, **kwargs)
        return self.out_lin(output), weights


OWN_WIDTHS = {cls.__bases__[1]: cls for cls in OwnWidths.__subclasses__()}  # by what transformers has


def attention_modules(model):
    """(module, names of its query, key, value and output matrices), each layer's."""
    for name, module in model.named_modules():
        own = OWN_WIDTHS.get(type(module))
        if own is None:
            continue
        output = name + ".out_lin" if hasattr(module, "out_lin") else name.removesuffix("self") + "output.dense"
        yield module, (*(f"{name}.{p}" for p in own.PROJECTIONS), output)


def fit_heads(model):
    """Teaches the attention modules whose matrices have other widths. Called
    after the matrices have the form that their tensors have."""
    for module, names in list(attention_modules(model)):
        query, key, value, output = (model.get_submodule(n) for n in names)
        heads, usual = OWN_WIDTHS[type(module)].heads_count(module), module.attention_head_size
        for name, width in ((names[0], query.out_features), (names[2], value.out_features)):
            if width != heads * usual and width not in range(16 * heads, 128 * heads + 1, 16 * heads):
                raise FormatError(f"matrix {name}: gives {width}, which is not {heads} heads of a width "
                                  f"that is a multiple of 16, up to 128")
        if query.out_features != key.out_features:
            raise FormatError(f"matrix {names[1]}: gives {key.out_features}, "
                              f"but {names[0]} gives {query.out_features}")
        if value.out_features != output.in_features:
            raise FormatError(f"matrix {names[3]}: takes {output.in_features}, "
                              f"but {names[2]} gives {value.out_features}")
        if {query.out_features, value.out_features} != {heads * usual}:
            # As torch.nn.utils.parametrize does: the same object, of a subclass.
            module.__class__ = OWN_WIDTHS[type(module)]


def has_own_widths(model):
    return any(isinstance(module, OwnWidths) for module in model.modules())
