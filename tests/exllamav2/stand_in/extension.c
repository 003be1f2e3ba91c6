/* A compiled module that is exllamav2_on_cpu under another name: what the node looks for is a
   compiled exllamav2_ext, and a Python file of that name is none. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "exllamav2_ext", NULL, -1, NULL};

PyMODINIT_FUNC PyInit_exllamav2_ext(void)
{
    PyObject *said = PyImport_ImportModule("exllamav2_on_cpu");
    if (said == NULL)
        return NULL;
    PyObject *module = PyModule_Create(&definition);
    PyObject *key, *value;
    Py_ssize_t at = 0;
    while (module != NULL && PyDict_Next(PyModule_GetDict(said), &at, &key, &value)) {
        const char *name = PyUnicode_AsUTF8(key);
        /* Its own __name__, __spec__ and the like stay as the import made them. */
        if (strncmp(name, "__", 2) == 0 && strcmp(name, "__getattr__") != 0)
            continue;
        if (PyModule_AddObjectRef(module, name, value) < 0)
            Py_CLEAR(module);
    }
    Py_DECREF(said);
    return module;
}
