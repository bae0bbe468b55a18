/* gpt_oss.metal._metal: the C interface as Python types.
 *
 * Every failure becomes an exception of gpt_oss.errors with the C core's sentence. The interpreter's lock is released
 * while files are mapped, text is encoded and the device works; a context refuses a second thread meanwhile. Ctrl-C
 * ends a computation between two command buffers.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "gpt-oss.h"

static PyObject *error_classes; /* the module gpt_oss.errors */

/* Raise what a failed status stands for; returns null. */
static PyObject *raise_status(gptoss_status status, const gptoss_error *error) {
    const char *name = "BackendError";
    switch (status) {
        case gptoss_status_invalid_argument:
            name = "RequestError";
            break;
        case gptoss_status_context_overflow:
            name = "ContextOverflow";
            break;
        case gptoss_status_unreadable_file:
        case gptoss_status_invalid_file:
            name = "CheckpointError";
            break;
        case gptoss_status_out_of_memory:
            name = "OutOfMemory";
            break;
        case gptoss_status_interrupted:
            if (PyErr_Occurred()) { /* the signal's handler has raised already */
                return NULL;
            }
            break;
        case gptoss_status_device_error:
        case gptoss_status_success:
            break;
    }
    PyObject *type = PyObject_GetAttrString(error_classes, name);
    if (type != NULL) {
        PyErr_SetString(type, error->text);
        Py_DECREF(type);
    }
    return NULL;
}

static PyObject *refuse(const char *format, ...) {
    gptoss_error error;
    va_list arguments;
    va_start(arguments, format);
    PyOS_vsnprintf(error.text, sizeof error.text, format, arguments);
    va_end(arguments);
    return raise_status(gptoss_status_invalid_argument, &error);
}

/* ---- conversions ---- */

/* A count or token: an integer that fits 32 bits. */
static bool to_uint32(PyObject *object, const char *what, uint32_t *value) {
    PyObject *index = PyNumber_Index(object);
    if (index == NULL) {
        return false;
    }
    int overflow;
    const long long number = PyLong_AsLongLongAndOverflow(index, &overflow);
    Py_DECREF(index);
    if (overflow != 0 || number < 0 || number > UINT32_MAX) {
        PyObject *text = PyObject_Str(object);
        const char *shown = text != NULL ? PyUnicode_AsUTF8(text) : NULL;
        if (shown != NULL) {
            refuse("%s is %.40s, expected a number from 0 to %u", what, shown, UINT32_MAX);
        }
        Py_XDECREF(text);
        return false;
    }
    *value = (uint32_t)number;
    return true;
}

static int convert_count(PyObject *object, void *value) {
    return to_uint32(object, "a number of tokens", value) ? 1 : 0;
}

/* The tokens of any sequence of integers, in memory to be freed by PyMem_Free. */
static uint32_t *to_tokens(PyObject *object, size_t *count) {
    PyObject *sequence = PySequence_Fast(object, "expected a sequence of token ids");
    if (sequence == NULL) {
        return NULL;
    }
    const size_t length = (size_t)PySequence_Fast_GET_SIZE(sequence);
    uint32_t *tokens = PyMem_New(uint32_t, length > 0 ? length : 1);
    if (tokens == NULL) {
        PyErr_NoMemory();
    }
    for (size_t n = 0; tokens != NULL && n < length; n++) {
        if (!to_uint32(PySequence_Fast_GET_ITEM(sequence, (Py_ssize_t)n), "a token", &tokens[n])) {
            PyMem_Free(tokens);
            tokens = NULL;
        }
    }
    Py_DECREF(sequence);
    *count = length;
    return tokens;
}

static PyObject *from_tokens(const uint32_t *tokens, size_t count) {
    PyObject *list = PyList_New((Py_ssize_t)count);
    for (size_t n = 0; list != NULL && n < count; n++) {
        PyObject *token = PyLong_FromUnsignedLong(tokens[n]);
        if (token == NULL) {
            Py_CLEAR(list);
        } else {
            PyList_SET_ITEM(list, (Py_ssize_t)n, token);
        }
    }
    return list;
}

/* Text as bytes: `owner` keeps them alive and is released by the caller. */
typedef struct {
    PyObject *owner;
    const char *bytes;
    Py_ssize_t size;
} text_bytes;

static bool to_text(PyObject *object, text_bytes *text) {
    if (PyBytes_Check(object)) {
        text->owner = Py_NewRef(object);
        text->bytes = PyBytes_AS_STRING(object);
        text->size = PyBytes_GET_SIZE(object);
        return true;
    }
    if (!PyUnicode_Check(object)) {
        PyErr_Format(PyExc_TypeError, "expected str or bytes, got %.100s", Py_TYPE(object)->tp_name);
        return false;
    }
    text->owner = Py_NewRef(object);
    text->bytes = PyUnicode_AsUTF8AndSize(object, &text->size);
    if (text->bytes == NULL && PyErr_ExceptionMatches(PyExc_UnicodeEncodeError)) {
        /* Half of a surrogate pair: pairs are joined, what is alone is replaced, as tiktoken does. */
        PyErr_Clear();
        PyObject *units = PyUnicode_AsEncodedString(object, "utf-16", "surrogatepass");
        Py_SETREF(text->owner, units == NULL ? NULL
                                             : PyUnicode_Decode(PyBytes_AS_STRING(units), PyBytes_GET_SIZE(units),
                                                                "utf-16", "replace"));
        Py_XDECREF(units);
        text->bytes = text->owner == NULL ? NULL : PyUnicode_AsUTF8AndSize(text->owner, &text->size);
    }
    if (text->bytes == NULL) {
        Py_CLEAR(text->owner);
        return false;
    }
    return true;
}

/* ---- Tokenizer ---- */

typedef struct {
    PyObject_HEAD
    gptoss_tokenizer *tokenizer;
} TokenizerObject;

typedef struct {
    PyObject_HEAD
    gptoss_model *model;
} ModelObject;

typedef struct {
    PyObject_HEAD
    gptoss_context *context;
    uint32_t vocabulary_size;
    bool busy; /* a thread is computing without the interpreter's lock */
} ContextObject;

static PyTypeObject ModelType;

static PyObject *tokenizer_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords) {
    static char *names[] = {"model", NULL};
    ModelObject *model;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "O!:Tokenizer", names, &ModelType, &model)) {
        return NULL;
    }
    TokenizerObject *self = (TokenizerObject *)type->tp_alloc(type, 0);
    if (self != NULL) {
        self->tokenizer = gptoss_model_get_tokenizer(model->model);
    }
    return (PyObject *)self;
}

static void tokenizer_dealloc(TokenizerObject *self) {
    gptoss_tokenizer_release(self->tokenizer);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static PyObject *tokenizer_encode(TokenizerObject *self, PyObject *object) {
    text_bytes text;
    if (!to_text(object, &text)) {
        return NULL;
    }
    PyObject *result = NULL;
    uint32_t *tokens = PyMem_New(uint32_t, text.size > 0 ? (size_t)text.size : 1);
    if (tokens == NULL) {
        PyErr_NoMemory();
    } else {
        gptoss_error error;
        gptoss_status status;
        size_t count = 0;
        Py_BEGIN_ALLOW_THREADS
        status = gptoss_tokenizer_encode(self->tokenizer, text.bytes, (size_t)text.size, tokens, &count, &error);
        Py_END_ALLOW_THREADS
        result = status == gptoss_status_success ? from_tokens(tokens, count) : raise_status(status, &error);
    }
    PyMem_Free(tokens);
    Py_DECREF(text.owner);
    return result;
}

/* Write a token's bytes at `buffer`, if there is one; returns their number, or -1 with an exception. */
static Py_ssize_t decode_one(const TokenizerObject *self, uint32_t token, char *buffer, size_t capacity) {
    gptoss_error error;
    size_t size;
    const gptoss_status status = gptoss_tokenizer_decode(self->tokenizer, token, buffer, capacity, &size, &error);
    if (status != gptoss_status_success) {
        raise_status(status, &error);
        return -1;
    }
    return (Py_ssize_t)size;
}

static PyObject *tokenizer_decode(TokenizerObject *self, PyObject *object) {
    uint32_t single, *tokens = &single;
    size_t count = 1;
    if (PyIndex_Check(object)) {
        if (!to_uint32(object, "a token", &single)) {
            return NULL;
        }
    } else if ((tokens = to_tokens(object, &count)) == NULL) {
        return NULL;
    }
    Py_ssize_t total = 0;
    PyObject *result = NULL;
    for (size_t n = 0; n < count && total >= 0; n++) {
        const Py_ssize_t size = decode_one(self, tokens[n], NULL, 0);
        total = size < 0 ? -1 : total + size;
    }
    if (total >= 0 && (result = PyBytes_FromStringAndSize(NULL, total)) != NULL) {
        Py_ssize_t at = 0;
        for (size_t n = 0; n < count; n++) {
            at += decode_one(self, tokens[n], PyBytes_AS_STRING(result) + at, (size_t)(total - at));
        }
    }
    if (tokens != &single) {
        PyMem_Free(tokens);
    }
    return result;
}

static PyObject *tokenizer_encode_special_token(TokenizerObject *self, PyObject *object) {
    const char *name = PyUnicode_AsUTF8(object);
    if (name == NULL) {
        return NULL;
    }
    gptoss_error error;
    uint32_t token;
    const gptoss_status status = gptoss_tokenizer_get_special_token(self->tokenizer, name, &token, &error);
    return status == gptoss_status_success ? PyLong_FromUnsignedLong(token) : raise_status(status, &error);
}

static PyObject *tokenizer_num_tokens(TokenizerObject *self, void *Py_UNUSED(closure)) {
    return PyLong_FromUnsignedLong(gptoss_tokenizer_get_num_tokens(self->tokenizer));
}

static PyObject *tokenizer_num_text_tokens(TokenizerObject *self, void *Py_UNUSED(closure)) {
    return PyLong_FromUnsignedLong(gptoss_tokenizer_get_num_text_tokens(self->tokenizer));
}

static PyObject *tokenizer_num_special_tokens(TokenizerObject *self, void *Py_UNUSED(closure)) {
    return PyLong_FromUnsignedLong(gptoss_tokenizer_get_num_special_tokens(self->tokenizer));
}

static PyMethodDef tokenizer_methods[] = {
    {"encode", (PyCFunction)tokenizer_encode, METH_O,
     "encode(text, /)\n--\n\nThe token ids of str or bytes, as tiktoken's o200k_harmony encodes ordinary text."},
    {"decode", (PyCFunction)tokenizer_decode, METH_O,
     "decode(tokens, /)\n--\n\nThe bytes of one token id or of several; special tokens give their names.\n"
     "RequestError for an id that no token has."},
    {"encode_special_token", (PyCFunction)tokenizer_encode_special_token, METH_O,
     "encode_special_token(name, /)\n--\n\nThe id of a special token such as '<|start|>'.\n"
     "RequestError if the model file does not have it."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef tokenizer_properties[] = {
    {"num_tokens", (getter)tokenizer_num_tokens, NULL, "Text and special tokens together.", NULL},
    {"num_text_tokens", (getter)tokenizer_num_text_tokens, NULL, "Ids below this number are text.", NULL},
    {"num_special_tokens", (getter)tokenizer_num_special_tokens, NULL, "Special tokens that have logits.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyTypeObject TokenizerType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "gpt_oss.metal.Tokenizer",
    .tp_doc = "Tokenizer(model)\n--\n\nThe vocabulary of a model: text to token ids and back.",
    .tp_basicsize = sizeof(TokenizerObject),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = tokenizer_new,
    .tp_dealloc = (destructor)tokenizer_dealloc,
    .tp_methods = tokenizer_methods,
    .tp_getset = tokenizer_properties,
};

/* ---- Model ---- */

static PyObject *model_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords) {
    static char *names[] = {"path", NULL};
    PyObject *path;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "O&:Model", names, PyUnicode_FSConverter, &path)) {
        return NULL;
    }
    gptoss_error error;
    gptoss_status status;
    gptoss_model *model = NULL;
    Py_BEGIN_ALLOW_THREADS
    status = gptoss_model_create_from_file(PyBytes_AS_STRING(path), &model, &error);
    Py_END_ALLOW_THREADS
    Py_DECREF(path);
    if (status != gptoss_status_success) {
        return raise_status(status, &error);
    }
    ModelObject *self = (ModelObject *)type->tp_alloc(type, 0);
    if (self == NULL) {
        gptoss_model_release(model);
        return NULL;
    }
    self->model = model;
    return (PyObject *)self;
}

static void model_dealloc(ModelObject *self) {
    gptoss_model_release(self->model);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static PyObject *model_max_context_length(ModelObject *self, void *Py_UNUSED(closure)) {
    return PyLong_FromUnsignedLong(gptoss_model_get_max_context_length(self->model));
}

static PyObject *model_vocabulary_size(ModelObject *self, void *Py_UNUSED(closure)) {
    return PyLong_FromUnsignedLong(gptoss_model_get_vocabulary_size(self->model));
}

static PyObject *model_tokenizer(ModelObject *self, void *Py_UNUSED(closure)) {
    return PyObject_CallOneArg((PyObject *)&TokenizerType, (PyObject *)self);
}

static PyGetSetDef model_properties[] = {
    {"max_context_length", (getter)model_max_context_length, NULL, "The most tokens a context can hold.", NULL},
    {"vocabulary_size", (getter)model_vocabulary_size, NULL, "Entries of the logits.", NULL},
    {"tokenizer", (getter)model_tokenizer, NULL, "The model's Tokenizer.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyTypeObject ModelType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "gpt_oss.metal.Model",
    .tp_doc = "Model(path)\n--\n\nA model file, mapped into memory and checked completely.\n\n"
              "CheckpointError if it cannot be read or is not a gpt-oss model file; BackendError without a device.",
    .tp_basicsize = sizeof(ModelObject),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = model_new,
    .tp_dealloc = (destructor)model_dealloc,
    .tp_getset = model_properties,
};

/* ---- Context ---- */

/* Called by the C core between command buffers: run the handlers of signals that have arrived. */
static bool is_interrupted(void *Py_UNUSED(data)) {
    const PyGILState_STATE state = PyGILState_Ensure();
    const bool interrupted = PyErr_CheckSignals() != 0;
    PyGILState_Release(state);
    return interrupted;
}

static PyObject *context_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords) {
    static char *names[] = {"model", "context_length", "max_batch_tokens", NULL};
    ModelObject *model;
    uint32_t length = 0, batch = 0;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "O!|O&O&:Context", names, &ModelType, &model, convert_count,
                                     &length, convert_count, &batch)) {
        return NULL;
    }
    ContextObject *self = (ContextObject *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    gptoss_error error;
    const gptoss_status status = gptoss_context_create(model->model, length, batch, &self->context, &error);
    if (status != gptoss_status_success) {
        Py_DECREF(self);
        return raise_status(status, &error);
    }
    gptoss_context_set_interrupt(self->context, is_interrupted, NULL);
    self->vocabulary_size = gptoss_model_get_vocabulary_size(model->model);
    return (PyObject *)self;
}

static void context_dealloc(ContextObject *self) {
    gptoss_context_release(self->context);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

/* False, with an exception, while another thread computes on the context. */
static bool is_free(const ContextObject *self) {
    if (self->busy) {
        PyErr_SetString(PyExc_RuntimeError, "another thread is computing on this context; use one context per thread");
    }
    return !self->busy;
}

static PyObject *none_or_raise(gptoss_status status, const gptoss_error *error) {
    return status == gptoss_status_success ? Py_NewRef(Py_None) : raise_status(status, error);
}

static PyObject *context_append(ContextObject *self, PyObject *object) {
    gptoss_error error;
    gptoss_status status;
    if (!is_free(self)) {
        return NULL;
    }
    if (PyUnicode_Check(object) || PyBytes_Check(object)) {
        text_bytes text;
        if (!to_text(object, &text)) {
            return NULL;
        }
        self->busy = true;
        Py_BEGIN_ALLOW_THREADS
        status = gptoss_context_append_text(self->context, text.bytes, (size_t)text.size, NULL, &error);
        Py_END_ALLOW_THREADS
        self->busy = false;
        Py_DECREF(text.owner);
    } else if (PyIndex_Check(object)) {
        uint32_t token;
        if (!to_uint32(object, "a token", &token)) {
            return NULL;
        }
        status = gptoss_context_append_tokens(self->context, &token, 1, &error);
    } else {
        size_t count;
        uint32_t *tokens = to_tokens(object, &count);
        if (tokens == NULL) {
            return NULL;
        }
        status = gptoss_context_append_tokens(self->context, tokens, count, &error);
        PyMem_Free(tokens);
    }
    return none_or_raise(status, &error);
}

static PyObject *context_process(ContextObject *self, PyObject *Py_UNUSED(none)) {
    gptoss_error error;
    gptoss_status status;
    if (!is_free(self)) {
        return NULL;
    }
    self->busy = true;
    Py_BEGIN_ALLOW_THREADS
    status = gptoss_context_process(self->context, &error);
    Py_END_ALLOW_THREADS
    self->busy = false;
    return none_or_raise(status, &error);
}

static PyObject *context_sample(ContextObject *self, PyObject *arguments, PyObject *keywords) {
    static char *names[] = {"max_output_tokens", "temperature", "seed", "top_p", "stop_tokens", NULL};
    uint32_t wanted = 1;
    gptoss_sampling sampling = {.temperature = 1, .top_p = 1};
    unsigned long long seed = 0;
    PyObject *stop = NULL;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "|O&fKfO:sample", names, convert_count, &wanted,
                                     &sampling.temperature, &seed, &sampling.top_p, &stop) ||
        !is_free(self)) {
        return NULL;
    }
    sampling.seed = seed;
    uint32_t *stop_tokens = stop == NULL ? NULL : to_tokens(stop, &sampling.num_stop_tokens);
    if (stop != NULL && stop_tokens == NULL) {
        return NULL;
    }
    sampling.stop_tokens = stop_tokens;
    const uint32_t room =
        gptoss_context_get_max_tokens(self->context) - gptoss_context_get_num_tokens(self->context);
    const size_t most = wanted < room ? wanted : room;
    uint32_t *output = PyMem_New(uint32_t, most > 0 ? most : 1);
    PyObject *result = NULL;
    if (output == NULL) {
        PyErr_NoMemory();
    } else {
        gptoss_error error;
        gptoss_status status;
        size_t count;
        self->busy = true;
        Py_BEGIN_ALLOW_THREADS
        status = gptoss_context_sample(self->context, &sampling, most, output, &count, &error);
        Py_END_ALLOW_THREADS
        self->busy = false;
        result = status == gptoss_status_success ? from_tokens(output, count) : raise_status(status, &error);
    }
    PyMem_Free(output);
    PyMem_Free(stop_tokens);
    return result;
}

static PyObject *context_truncate(ContextObject *self, PyObject *object) {
    uint32_t length;
    if (!is_free(self) || !to_uint32(object, "a number of tokens", &length)) {
        return NULL;
    }
    gptoss_error error;
    return none_or_raise(gptoss_context_truncate(self->context, length, &error), &error);
}

static PyObject *context_reset(ContextObject *self, PyObject *Py_UNUSED(none)) {
    if (!is_free(self)) {
        return NULL;
    }
    gptoss_context_reset(self->context);
    return Py_NewRef(Py_None);
}

static PyObject *context_logits(ContextObject *self, void *Py_UNUSED(closure)) {
    if (!is_free(self)) {
        return NULL;
    }
    const Py_ssize_t bytes = (Py_ssize_t)(self->vocabulary_size * sizeof(float));
    PyObject *values = PyByteArray_FromStringAndSize(NULL, bytes);
    if (values == NULL) {
        return NULL;
    }
    gptoss_error error;
    gptoss_status status;
    self->busy = true;
    float *target = (float *)PyByteArray_AS_STRING(values);
    Py_BEGIN_ALLOW_THREADS
    status = gptoss_context_get_logits(self->context, target, &error);
    Py_END_ALLOW_THREADS
    self->busy = false;
    PyObject *view = status == gptoss_status_success ? PyMemoryView_FromObject(values) : raise_status(status, &error);
    Py_DECREF(values);
    PyObject *result = view == NULL ? NULL : PyObject_CallMethod(view, "cast", "s", "f");
    Py_XDECREF(view);
    return result;
}

static PyObject *context_num_tokens(ContextObject *self, void *Py_UNUSED(closure)) {
    return is_free(self) ? PyLong_FromUnsignedLong(gptoss_context_get_num_tokens(self->context)) : NULL;
}

static PyObject *context_num_cached_tokens(ContextObject *self, void *Py_UNUSED(closure)) {
    return is_free(self) ? PyLong_FromUnsignedLong(gptoss_context_get_num_cached_tokens(self->context)) : NULL;
}

static PyObject *context_max_tokens(ContextObject *self, void *Py_UNUSED(closure)) {
    return PyLong_FromUnsignedLong(gptoss_context_get_max_tokens(self->context));
}

static PyObject *context_tokens(ContextObject *self, void *Py_UNUSED(closure)) {
    return is_free(self) ? from_tokens(gptoss_context_get_tokens(self->context),
                                       gptoss_context_get_num_tokens(self->context))
                         : NULL;
}

static PyObject *context_memory_bytes(ContextObject *self, void *Py_UNUSED(closure)) {
    return is_free(self) ? PyLong_FromSize_t(gptoss_context_get_memory_bytes(self->context)) : NULL;
}

static PyMethodDef context_methods[] = {
    {"append", (PyCFunction)context_append, METH_O,
     "append(content, /)\n--\n\nAppend text (str or bytes), one token id or a sequence of them, to be computed later.\n\n"
     "Keys and values of equal tokens that truncate or reset dropped are used again. Nothing is appended if the tokens\n"
     "do not fit (ContextOverflow) or one is unknown (RequestError)."},
    {"process", (PyCFunction)context_process, METH_NOARGS,
     "process()\n--\n\nCompute all tokens that have no keys and values yet, and the logits after the last one."},
    {"sample", (PyCFunction)(void (*)(void))context_sample, METH_VARARGS | METH_KEYWORDS,
     "sample(max_output_tokens=1, temperature=1.0, seed=0, top_p=1.0, stop_tokens=())\n--\n\n"
     "Sample and append tokens until one of stop_tokens (included), the limit or the end of the context.\n\n"
     "temperature: 0 takes the most probable token. seed: makes the choice repeatable. top_p: sample among the fewest\n"
     "tokens that hold this share. Returns the list of token ids."},
    {"truncate", (PyCFunction)context_truncate, METH_O,
     "truncate(num_tokens, /)\n--\n\nDrop all but the first num_tokens tokens."},
    {"reset", (PyCFunction)context_reset, METH_NOARGS, "reset()\n--\n\nDrop all tokens."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef context_properties[] = {
    {"num_tokens", (getter)context_num_tokens, NULL, "Tokens in the context, computed or not.", NULL},
    {"num_cached_tokens", (getter)context_num_cached_tokens, NULL,
     "Tokens from the first on whose keys and values will be used again.", NULL},
    {"max_tokens", (getter)context_max_tokens, NULL, "The most tokens the context can hold.", NULL},
    {"tokens", (getter)context_tokens, NULL, "The tokens as a new list.", NULL},
    {"logits", (getter)context_logits, NULL,
     "The logits after the last token, computed if they are missing: a new memoryview of vocabulary_size floats.", NULL},
    {"memory_bytes", (getter)context_memory_bytes, NULL, "Bytes of device memory that the context holds now.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyTypeObject ContextType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "gpt_oss.metal.Context",
    .tp_doc = "Context(model, context_length=0, max_batch_tokens=0)\n--\n\n"
              "One sequence of tokens with its keys and values.\n\n"
              "context_length: the most tokens it can hold (0: the model's). max_batch_tokens: the most tokens of one\n"
              "command buffer (0: chosen). Memory for keys and values is taken as the context grows.",
    .tp_basicsize = sizeof(ContextObject),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = context_new,
    .tp_dealloc = (destructor)context_dealloc,
    .tp_methods = context_methods,
    .tp_getset = context_properties,
};

/* ---- module ---- */

static PyObject *describe_device(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(none)) {
    gptoss_device device;
    gptoss_error error;
    gptoss_status status;
    Py_BEGIN_ALLOW_THREADS
    status = gptoss_device_describe(&device, &error);
    Py_END_ALLOW_THREADS
    if (status != gptoss_status_success) {
        return raise_status(status, &error);
    }
    return Py_BuildValue("(sO)", device.name, device.emulated ? Py_True : Py_False);
}

static PyMethodDef module_functions[] = {
    {"describe_device", describe_device, METH_NOARGS,
     "describe_device()\n--\n\nThe device's name, and whether it is emulated. BackendError if there is none."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module_definition = {
    PyModuleDef_HEAD_INIT, .m_name = "_metal", .m_doc = "See gpt_oss.metal.", .m_size = -1,
    .m_methods = module_functions,
};

PyMODINIT_FUNC PyInit__metal(void) {
    error_classes = PyImport_ImportModule("gpt_oss.errors");
    PyObject *module = error_classes == NULL ? NULL : PyModule_Create(&module_definition);
    if (module == NULL) {
        return NULL;
    }
    PyTypeObject *types[] = {&ModelType, &ContextType, &TokenizerType};
    for (size_t n = 0; n < sizeof types / sizeof *types; n++) {
        if (PyModule_AddType(module, types[n]) != 0) {
            Py_DECREF(module);
            return NULL;
        }
    }
    return module;
}
