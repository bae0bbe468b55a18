#include "split.h"

#include <stdbool.h>

#include "unicode_classes.h"

/* Sets of classes; the comments below call them U and L. */
enum {
    LETTER = 1u << CLASS_UPPER | 1u << CLASS_LOWER | 1u << CLASS_CASELESS,     /* \p{L} */
    UPPER_SET = 1u << CLASS_UPPER | 1u << CLASS_CASELESS | 1u << CLASS_MARK,   /* U = [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}] */
    LOWER_SET = 1u << CLASS_LOWER | 1u << CLASS_CASELESS | 1u << CLASS_MARK,   /* L = [\p{Ll}\p{Lm}\p{Lo}\p{M}] */
    BOTH_SETS = UPPER_SET & LOWER_SET,
    NUMBER = 1u << CLASS_NUMBER,                                               /* \p{N} */
    SPACE = 1u << CLASS_SPACE,                                                 /* \s */
    SYMBOL = 1u << CLASS_OTHER | 1u << CLASS_MARK,                             /* [^\s\p{L}\p{N}] */
};

typedef struct {
    uint32_t point;
    uint32_t set; /* 1 << its class; 0 at the end of the text */
    size_t next;  /* the byte after it */
} character;

/* The class of a code point: that of the last run that begins at or before it. */
static uint32_t class_of(uint32_t point) {
    size_t low = 0, high = sizeof class_runs / sizeof *class_runs;
    while (high - low > 1) {
        const size_t middle = (low + high) / 2;
        if (class_runs[middle] >> CLASS_BITS <= point) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return class_runs[low] & ((1u << CLASS_BITS) - 1);
}

static character character_at(const uint8_t *text, size_t at, size_t end) {
    if (at >= end) {
        return (character){0, 0, at};
    }
    const uint8_t lead = text[at];
    uint32_t point = lead;
    size_t next = at + 1;
    if (lead >= 0x80) {
        const unsigned more = lead >= 0xF0 ? 3 : lead >= 0xE0 ? 2 : 1;
        point = lead & (0x3Fu >> more);
        while (next < end && next <= at + more) {
            point = point << 6 | (text[next++] & 0x3F);
        }
    }
    return (character){point, 1u << class_of(point), next};
}

static bool is_newline(character c) {
    return c.set != 0 && (c.point == '\r' || c.point == '\n');
}

/* The end of the longest run of characters of a set. */
static size_t skip_run(const uint8_t *text, size_t at, size_t end, uint32_t set) {
    for (character c = character_at(text, at, end); c.set & set; c = character_at(text, at, end)) {
        at = c.next;
    }
    return at;
}

/* (?i:'s|'t|'re|'ve|'m|'ll|'d)? — in Unicode, the long s (U+017F) is an s of another case. */
static size_t skip_contraction(const uint8_t *text, size_t at, size_t end) {
    if (at >= end || text[at] != '\'') {
        return at;
    }
    const character first = character_at(text, at + 1, end);
    const uint32_t letter = first.set != 0 ? first.point | 0x20 : 0;
    if (first.point == 0x17F || (first.point < 0x80 && (letter == 's' || letter == 't' || letter == 'm' || letter == 'd'))) {
        return first.next;
    }
    const uint32_t second = first.next < end && text[first.next] < 0x80 ? text[first.next] | 0x20u : 0;
    if (first.point < 0x80 && (((letter == 'r' || letter == 'v') && second == 'e') || (letter == 'l' && second == 'l'))) {
        return first.next + 1;
    }
    return at;
}

/* U*L+ from `at`; `at` itself if it does not match. */
static size_t skip_lower_word(const uint8_t *text, size_t at, size_t end) {
    size_t last_in_both = at; /* the end of the last character that L+ could take back from U* */
    size_t run = at;
    for (character c = character_at(text, run, end); c.set & UPPER_SET; c = character_at(text, run, end)) {
        run = c.next;
        if (c.set & BOTH_SETS) {
            last_in_both = run;
        }
    }
    const size_t lower = skip_run(text, run, end, LOWER_SET);
    return lower > run ? lower : last_in_both;
}

/* U+L* from `at`; `at` itself if it does not match. */
static size_t skip_upper_word(const uint8_t *text, size_t at, size_t end) {
    const size_t run = skip_run(text, at, end, UPPER_SET);
    return run == at ? at : skip_run(text, run, end, LOWER_SET);
}

/* The first two alternatives: an optional character that is no letter, number or newline, then a word. */
static size_t skip_word(const uint8_t *text, size_t start, size_t end) {
    size_t (*const words[])(const uint8_t *, size_t, size_t) = {skip_lower_word, skip_upper_word};
    const character first = character_at(text, start, end);
    const bool may_lead = !(first.set & (LETTER | NUMBER)) && !is_newline(first);
    for (size_t n = 0; n < 2; n++) {
        for (int led = may_lead; led >= 0; led--) {
            const size_t begin = led ? first.next : start;
            const size_t stop = words[n](text, begin, end);
            if (stop > begin) {
                return skip_contraction(text, stop, end);
            }
        }
    }
    return start;
}

/* The last three alternatives, for white space at `start`. */
static size_t skip_space(const uint8_t *text, size_t start, size_t end) {
    size_t after_newline = start, before_last = start, at = start;
    for (character c = character_at(text, at, end); c.set & SPACE; c = character_at(text, at, end)) {
        before_last = at;
        at = c.next;
        if (is_newline(c)) {
            after_newline = at;
        }
    }
    if (after_newline > start) {
        return after_newline; /* \s*[\r\n]+ */
    }
    /* \s+(?!\S) leaves the last space to the word that follows; \s+ takes it where it is the only one. */
    return at < end && before_last > start ? before_last : at;
}

size_t gptoss_split_piece(const uint8_t *text, size_t start, size_t end) {
    const size_t word = skip_word(text, start, end);
    if (word > start) {
        return word;
    }
    const character first = character_at(text, start, end);
    if (first.set & NUMBER) { /* \p{N}{1,3} */
        size_t at = first.next;
        for (int digits = 1; digits < 3; digits++) {
            const character c = character_at(text, at, end);
            at = c.set & NUMBER ? c.next : at;
        }
        return at;
    }
    const size_t begin = first.point == ' ' ? first.next : start;
    size_t symbols = skip_run(text, begin, end, SYMBOL);
    if (symbols > begin) { /*  ?[^\s\p{L}\p{N}]+[\r\n/]* */
        while (symbols < end && (text[symbols] == '\r' || text[symbols] == '\n' || text[symbols] == '/')) {
            symbols++;
        }
        return symbols;
    }
    return skip_space(text, start, end);
}

size_t gptoss_valid_utf8(const uint8_t *text, size_t size) {
    size_t at = 0;
    while (at < size) {
        const uint8_t lead = text[at];
        size_t more = 0;
        uint8_t low = 0x80, high = 0xBF; /* of the second byte: no overlong forms, no surrogates, nothing above 10FFFF */
        if (lead >= 0xC2 && lead <= 0xDF) {
            more = 1;
        } else if (lead >= 0xE0 && lead <= 0xEF) {
            more = 2;
            low = lead == 0xE0 ? 0xA0 : 0x80;
            high = lead == 0xED ? 0x9F : 0xBF;
        } else if (lead >= 0xF0 && lead <= 0xF4) {
            more = 3;
            low = lead == 0xF0 ? 0x90 : 0x80;
            high = lead == 0xF4 ? 0x8F : 0xBF;
        } else if (lead >= 0x80) {
            return at;
        }
        if (more > 0 && (size - at <= more || text[at + 1] < low || text[at + 1] > high)) {
            return at;
        }
        for (size_t n = 2; n <= more; n++) {
            if ((text[at + n] & 0xC0) != 0x80) {
                return at;
            }
        }
        at += more + 1;
    }
    return at;
}
