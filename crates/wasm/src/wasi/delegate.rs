//! Host traits of Wasmtime that a pod's own view implements: the names of methods come in, the methods go out, each of
//! which hands its call on to Wasmtime's own view.

/// Methods that pass through unchanged.
macro_rules! delegate {
    ($of:ident on $resource:ty; $( fn $name:ident($($argument:ident: $type:ty),*) -> $result:ty; )*) => {
        $(
            fn $name(&mut self, this: Resource<$resource> $(, $argument: $type)*) -> $result {
                $of::$name(&mut self.inner, this $(, $argument)*)
            }
        )*
    };
}

pub(super) use delegate;
