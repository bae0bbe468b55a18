/* The split of text into pieces that o200k_base makes before it merges bytes.
 *
 * In: UTF-8. Out: where the piece that begins at a given byte ends. Written by hand for the one pattern that model
 * files have (GPTOSS_SPLIT_PATTERN), with the leftmost-first, greedy, backtracking meaning of its regular expression.
 * Knows no tokens.
 */
#ifndef GPTOSS_SPLIT_H
#define GPTOSS_SPLIT_H

#include <stddef.h>
#include <stdint.h>

#define GPTOSS_SPLIT_PATTERN                                                                                           \
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+"                        \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)?"                                                                                    \
    "|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*"                       \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)?"                                                                                    \
    "|\\p{N}{1,3}"                                                                                                     \
    "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*"                                                                                 \
    "|\\s*[\\r\\n]+"                                                                                                   \
    "|\\s+(?!\\S)"                                                                                                     \
    "|\\s+"

/* The end of the piece that begins at `start`.
 *
 * text: `end` bytes of valid UTF-8; start < end and on a character's first byte.
 * Takes time proportional to the piece, or to the run of letters or white space that follows `start`. */
size_t gptoss_split_piece(const uint8_t *text, size_t start, size_t end);

/* The number of bytes before the first that is not valid UTF-8 (RFC 3629), `size` if all are. */
size_t gptoss_valid_utf8(const uint8_t *text, size_t size);

#endif
