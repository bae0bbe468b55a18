/* What metal_device.m uses of Apple's Foundation, declared from its public documentation, to check and to run the file
 * where no Apple SDK is. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __APPLE__
#include <dispatch/dispatch.h>
#include <objc/NSObject.h> /* what NSObject is, from the real headers */
#else
#if __has_include(<objc/objc.h>)
#include <objc/objc.h>
#else
typedef signed char BOOL;
#define YES ((BOOL)1)
#define NO ((BOOL)0)
#define nil ((id)0)
#endif
typedef struct dispatch_data *dispatch_data_t;
#define DISPATCH_DATA_DESTRUCTOR_DEFAULT NULL
dispatch_data_t dispatch_data_create(const void *bytes, size_t size, void *queue, void (^destructor)(void));
void dispatch_release(dispatch_data_t data);


typedef unsigned long NSUInteger;
typedef long NSInteger;
@protocol NSObject
- (instancetype)retain;
- (oneway void)release;
- (instancetype)autorelease;
- (BOOL)respondsToSelector:(SEL)selector;
@end

__attribute__((objc_root_class))
@interface NSObject <NSObject> {
    Class isa;
}
+ (instancetype)alloc;
+ (instancetype)new;
- (instancetype)init;
- (void)dealloc;
@end
#endif

@interface NSAutoreleasePool : NSObject
- (void)drain;
@end

@interface NSString : NSObject
+ (instancetype)stringWithUTF8String:(const char *)text;
- (const char *)UTF8String;
@end

@interface NSError : NSObject
- (NSString *)localizedDescription;
@end
